/**
 * What hosts will have to carry, from what their VMs asked for lately. Sums over a set of VMs are looked at as a whole (mean
 * and spread of the *sum*): VMs that are busy at different times are worth more together than apart. No decision is made here.
 *
 * The load of a VM over minutes is mostly noise around a mean that moves slowly: the last sample says less about the next
 * one than the mean of the last hours does. Means of few samples are drawn towards what VMs of this fleet do on average
 * (empirical Bayes; Efron and Morris 1977), else a host of VMs that happened to be quiet at one moment would look empty.
 *
 * Loops run over indices that are made here, which the compiler cannot see: hence `!`.
 */

export interface ForecastVm {
  /** The most it can ask for, in the unit of the hosts' capacity; what it asks for is judged as a share of this. */
  readonly size: number;
  /** What it asked for, one value an interval, the newest last. Not empty. */
  readonly demands: ArrayLike<number>;
  /** What it will ask for soon, on average, by what the caller knows besides. Less than its mean counts for nothing. */
  readonly expected?: number | undefined;
}

/** Weight of what the fleet says of a variance against what was measured, in samples. */
const priorSamples = 6;
/** What of the spread between VMs lasts, as long as there is only one sample of each. */
const lastingShare = 0.5;

/** What is left of a difference of squares that are equal. */
const rounding = 1e-12;

/** Forecast of each VM, and the samples that sums are made of. */
export class DemandForecast {
  /** Samples that are looked at. */
  readonly window: number;
  /** Expected demand. */
  readonly mean: Float64Array;
  /** Variance of the demand around its mean, and of the mean around what we take it for. */
  readonly noise: Float64Array;
  readonly doubt: Float64Array;
  /** `window` values each, the newest last; what is older than the VM is its mean. */
  readonly samples: Float64Array;

  /** @param window how many samples back to look, at most */
  constructor(vms: readonly ForecastVm[], window: number) {
    const longest = vms.reduce((most, { demands }) => Math.max(most, demands.length), 1);
    this.window = Math.min(window, longest);
    this.mean = new Float64Array(vms.length);
    this.noise = new Float64Array(vms.length);
    this.doubt = new Float64Array(vms.length);
    this.samples = new Float64Array(vms.length * this.window);
    const shares = vms.map((vm) => momentsOf(vm, this.window));
    const fleet = fleetOf(shares);
    vms.forEach((vm, v) => this.#judge(v, vm, shares[v]!, fleet));
  }

  #judge(v: number, { size, demands, expected }: ForecastVm, own: Moments, fleet: FleetMoments): void {
    const trust = fleet.within > 0 ? fleet.between / (fleet.between + fleet.within / own.count) : 1;
    const mean = fleet.mean + trust * (own.mean - fleet.mean);
    const variance = (own.count * own.variance + priorSamples * fleet.within) / (own.count + priorSamples);
    this.mean[v] = Math.max(mean * size, expected ?? 0);
    this.noise[v] = variance * size * size;
    this.doubt[v] = (1 - trust) * fleet.between * size * size;
    const at = v * this.window;
    const missing = this.window - own.count;
    for (let i = 0; i < this.window; i++) {
      this.samples[at + i] = i < missing ? own.mean * size : demands[demands.length - this.window + i]!;
    }
  }
}

interface Moments {
  readonly count: number;
  readonly mean: number;
  readonly variance: number;
}

interface FleetMoments {
  readonly mean: number;
  /** Variance of one VM's share around its own mean, and of the VMs' means around the fleet's. */
  readonly within: number;
  readonly between: number;
}

function momentsOf({ size, demands }: ForecastVm, window: number): Moments {
  const count = Math.min(window, demands.length);
  let sum = 0;
  for (let i = demands.length - count; i < demands.length; i++) sum += demands[i]! / size;
  const mean = sum / count;
  let squares = 0;
  for (let i = demands.length - count; i < demands.length; i++) squares += (demands[i]! / size - mean) ** 2;
  return { count, mean, variance: squares / count };
}

/** One-way analysis of variance: what differs between VMs, and what each does by itself. */
function fleetOf(vms: readonly Moments[]): FleetMoments {
  if (vms.length === 0) return { mean: 0, within: 0, between: 0 };
  const mean = vms.reduce((sum, vm) => sum + vm.mean, 0) / vms.length;
  const spread = vms.reduce((sum, vm) => sum + (vm.mean - mean) ** 2, 0) / vms.length;
  const freedom = vms.reduce((sum, vm) => sum + vm.count - 1, 0);
  if (freedom === 0) return { mean, within: (1 - lastingShare) * spread, between: lastingShare * spread };
  const within = vms.reduce((sum, vm) => sum + vm.count * vm.variance, 0) / freedom;
  const noiseOfMeans = vms.reduce((sum, vm) => sum + within / vm.count, 0) / vms.length;
  return { mean, within, between: Math.max(0, spread - noiseOfMeans) };
}

/** The VMs of each host as one load, changed as VMs are planned to come and go. */
export class HostForecast {
  readonly #forecast: DemandForecast;
  readonly #mean: Float64Array;
  readonly #noise: Float64Array;
  readonly #doubt: Float64Array;
  readonly #sums: Float64Array;

  constructor(forecast: DemandForecast, hosts: number) {
    this.#forecast = forecast;
    this.#mean = new Float64Array(hosts);
    this.#noise = new Float64Array(hosts);
    this.#doubt = new Float64Array(hosts);
    this.#sums = new Float64Array(hosts * forecast.window);
  }

  /** Expected load. */
  mean(host: number): number {
    return this.#mean[host]!;
  }

  add(host: number, vm: number): void {
    this.#change(host, vm, 1);
  }

  remove(host: number, vm: number): void {
    this.#change(host, vm, -1);
  }

  /** What the load stays below but for `z` standard deviations (normal: 1.64 for 5 % of the time). */
  bound(host: number, z: number): number {
    return this.#boundOf(host, -1, 0, z);
  }

  boundWith(host: number, vm: number, z: number): number {
    return this.#boundOf(host, vm, 1, z);
  }

  boundWithout(host: number, vm: number, z: number): number {
    return this.#boundOf(host, vm, -1, z);
  }

  #change(host: number, vm: number, sign: 1 | -1): void {
    const { window, mean, noise, doubt, samples } = this.#forecast;
    this.#mean[host]! += sign * mean[vm]!;
    this.#noise[host]! += sign * noise[vm]!;
    this.#doubt[host]! += sign * doubt[vm]!;
    for (let i = 0; i < window; i++) this.#sums[host * window + i]! += sign * samples[vm * window + i]!;
  }

  /** The measured variance of the sum holds what its VMs have in common; the sum of their variances holds where it is short. */
  #boundOf(host: number, vm: number, sign: 1 | 0 | -1, z: number): number {
    const { window, mean, noise, doubt, samples } = this.#forecast;
    const sums = this.#sums;
    const at = host * window;
    const other = Math.max(vm, 0);
    const from = other * window;
    let total = 0;
    let squares = 0;
    for (let i = 0; i < window; i++) {
      const value = sums[at + i]! + (sign === 0 ? 0 : sign * samples[from + i]!);
      total += value;
      squares += value * value;
    }
    const spread = squares / window - (total / window) ** 2;
    const measured = spread > rounding * squares ? spread : 0;
    const alone = this.#noise[host]! + (sign === 0 ? 0 : sign * noise[other]!);
    const unsure = this.#doubt[host]! + (sign === 0 ? 0 : sign * doubt[other]!);
    const variance = (window * measured + priorSamples * alone) / (window + priorSamples) + unsure;
    const expected = this.#mean[host]! + (sign === 0 ? 0 : sign * mean[other]!);
    return expected + z * Math.sqrt(Math.max(0, variance));
  }
}
