/**
 * What is cut between which machines of one simulated network (control or migration), and how fast it is. A cut says nothing
 * to anybody: packets are just gone. Cuts add up: a way is open again when all that cut it are mended.
 */
export type Cut =
  /** All that the machine sends and gets. */
  | { readonly of: string }
  | { readonly between: readonly [string, string] }
  | { readonly from: string; readonly to: string };

export class Links {
  readonly #cuts = new Set<Cut>();
  readonly #without = new Set<string>();
  readonly #slow = new Map<string, number>();
  readonly #listeners = new Set<() => void>();

  /** Do packets get from one machine to the other? */
  carries(from: string, to: string): boolean {
    if (this.#without.size > 0 && (this.#without.has(from) || this.#without.has(to))) return false;
    if (this.#cuts.size === 0 || from === to) return true;
    for (const cut of this.#cuts) {
      if ('of' in cut) {
        if (cut.of === from || cut.of === to) return false;
      } else if ('between' in cut) {
        const [a, b] = cut.between;
        if ((a === from && b === to) || (a === to && b === from)) return false;
      } else if (cut.from === from && cut.to === to) return false;
    }
    return true;
  }

  bothWays(a: string, b: string): boolean {
    return this.carries(a, b) && this.carries(b, a);
  }

  cut(cut: Cut): void {
    this.#cuts.add(cut);
    this.#tell();
  }

  mend(cut: Cut): void {
    if (this.#cuts.delete(cut)) this.#tell();
  }

  /** A machine without power answers nothing. */
  power(machine: string, isOn: boolean): void {
    if (isOn) this.#without.delete(machine);
    else this.#without.add(machine);
    this.#tell();
  }

  hasPower(machine: string): boolean {
    return !this.#without.has(machine);
  }

  /** @param share of its speed, 0..1 */
  slow(machine: string, share: number): void {
    if (share >= 1) this.#slow.delete(machine);
    else this.#slow.set(machine, share);
    this.#tell();
  }

  shareOf(from: string, to: string): number {
    return Math.min(this.#slow.get(from) ?? 1, this.#slow.get(to) ?? 1);
  }

  /** Called when something was cut, mended or slowed. @returns a function that stops it */
  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  #tell(): void {
    for (const listener of this.#listeners) listener();
  }
}
