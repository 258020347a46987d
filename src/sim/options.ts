/** What makes a run: the same options give the same run, event by event. Kept beside a failed seed, so plain JSON. */
export const disturbanceLevels = ['none', 'light', 'heavy'] as const;
export type DisturbanceLevel = (typeof disturbanceLevels)[number];

export interface SimOptions {
  readonly seed: number;
  readonly hosts: number;
  readonly vms: number;
  readonly servers: number;
  /** Virtual time in all. Disturbances cease well before its end, so that everything can come to rest. */
  readonly minutes: number;
  readonly disturbances: DisturbanceLevel;
  /** A rule of Drover that is broken on purpose, to see that the checks notice; its name in faults.ts. */
  readonly fault: string | null;
  /** The distributor is automatic, and guests carry load; left out: in every third seed. */
  readonly balance?: boolean;
}

export function isBalanced({ seed, balance }: SimOptions): boolean {
  return balance ?? seed % 3 === 0;
}

export const defaultOptions: SimOptions = {
  seed: 1,
  hosts: 10,
  vms: 50,
  servers: 1,
  minutes: 10,
  disturbances: 'heavy',
  fault: null,
};

/** How long nothing is disturbed and nothing asked for at the end: longer than anything may take to come to rest. */
export const quietMs = 4 * 60_000;
