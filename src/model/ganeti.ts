/** What Ganeti's balancer looks at that a fleet snapshot has no words for. All are as they were read: no move changes them. */
export interface GanetiTraits {
  /** Virtual CPUs that count on a node before any VM does, by host name. */
  readonly ownVcpus: Readonly<Record<string, number>>;
  /** Free memory as a share's numerator when it is not what total, own and VMs give, by host name. */
  readonly forthcomingMiB: Readonly<Record<string, number>>;
  /** Parts of the score that no move of a VM on shared storage changes. */
  readonly constant: number;
}
