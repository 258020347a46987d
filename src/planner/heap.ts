/** What comes first, at the cost of a logarithm. The comparison decides fully, so that the order is one. */
export class Heap<T> {
  readonly #items: T[] = [];
  readonly #compare: (a: T, b: T) => number;

  constructor(compare: (a: T, b: T) => number) {
    this.#compare = compare;
  }

  peek(): T | undefined {
    return this.#items[0];
  }

  push(item: T): void {
    let i = this.#items.push(item) - 1;
    while (i > 0) {
      const up = (i - 1) >> 1;
      if (!this.#isBefore(i, up)) break;
      this.#swap(i, up);
      i = up;
    }
  }

  pop(): T | undefined {
    const items = this.#items;
    const top = items[0];
    const last = items.pop();
    if (last === undefined || items.length === 0) return top;
    items[0] = last;
    for (let i = 0; ;) {
      const [left, right] = [2 * i + 1, 2 * i + 2];
      let first = i;
      if (left < items.length && this.#isBefore(left, first)) first = left;
      if (right < items.length && this.#isBefore(right, first)) first = right;
      if (first === i) return top;
      this.#swap(i, first);
      i = first;
    }
  }

  #isBefore(a: number, b: number): boolean {
    return this.#compare(this.#items[a]!, this.#items[b]!) < 0;
  }

  #swap(a: number, b: number): void {
    [this.#items[a], this.#items[b]] = [this.#items[b]!, this.#items[a]!];
  }
}
