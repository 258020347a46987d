// Written by tools/qmp-types.ts from the schemas of QEMU 10.0.2 and 7.2.22; do not edit.
// Integers are JavaScript numbers: exact up to 2^53, more than any size or time that QEMU counts for us.

type Empty = Record<never, never>;

/** What each command takes and answers. */
export interface Commands {
  'add-fd': { args: AddFdArgs; reply: AddFdReply };
  'announce-self': { args: AnnounceSelfArgs; reply: Empty };
  balloon: { args: BalloonArgs; reply: Empty };
  'block-export-add': { args: BlockExportAddArgs; reply: Empty };
  'block-export-del': { args: BlockExportDelArgs; reply: Empty };
  'block-job-cancel': { args: BlockJobCancelArgs; reply: Empty };
  'blockdev-add': { args: BlockdevAddArgs; reply: Empty };
  'blockdev-del': { args: BlockdevDelArgs; reply: Empty };
  'blockdev-mirror': { args: BlockdevMirrorArgs; reply: Empty };
  'calc-dirty-rate': { args: CalcDirtyRateArgs; reply: Empty };
  closefd: { args: ClosefdArgs; reply: Empty };
  cont: { args: Empty; reply: Empty };
  device_add: { args: DeviceAddArgs & Record<string, unknown>; reply: Empty };
  device_del: { args: DeviceDelArgs; reply: Empty };
  getfd: { args: GetfdArgs; reply: Empty };
  'human-monitor-command': { args: HumanMonitorCommandArgs; reply: string };
  'job-cancel': { args: JobCancelArgs; reply: Empty };
  'job-complete': { args: JobCompleteArgs; reply: Empty };
  'job-dismiss': { args: JobDismissArgs; reply: Empty };
  migrate: { args: MigrateArgs; reply: Empty };
  'migrate-continue': { args: MigrateContinueArgs; reply: Empty };
  'migrate-incoming': { args: MigrateIncomingArgs; reply: Empty };
  'migrate-pause': { args: Empty; reply: Empty };
  'migrate-recover': { args: MigrateRecoverArgs; reply: Empty };
  'migrate-set-capabilities': { args: MigrateSetCapabilitiesArgs; reply: Empty };
  'migrate-set-parameters': { args: MigrateSetParametersArgs; reply: Empty };
  'migrate-start-postcopy': { args: Empty; reply: Empty };
  migrate_cancel: { args: Empty; reply: Empty };
  'nbd-server-start': { args: NbdServerStartArgs; reply: Empty };
  'nbd-server-stop': { args: Empty; reply: Empty };
  netdev_add: { args: NetdevAddArgs; reply: Empty };
  netdev_del: { args: NetdevDelArgs; reply: Empty };
  'object-add': { args: ObjectAddArgs; reply: Empty };
  'object-del': { args: ObjectDelArgs; reply: Empty };
  qmp_capabilities: { args: QmpCapabilitiesArgs; reply: Empty };
  'query-balloon': { args: Empty; reply: QueryBalloonReply };
  'query-block': { args: Empty; reply: QueryBlockReply[] };
  'query-block-exports': { args: Empty; reply: QueryBlockExportsReply[] };
  'query-block-jobs': { args: Empty; reply: QueryBlockJobsReply[] };
  'query-blockstats': { args: QueryBlockstatsArgs; reply: QueryBlockstatsReply[] };
  'query-chardev': { args: Empty; reply: QueryChardevReply[] };
  'query-commands': { args: Empty; reply: QueryCommandsReply[] };
  'query-cpu-definitions': { args: Empty; reply: QueryCpuDefinitionsReply[] };
  'query-cpus-fast': { args: Empty; reply: QueryCpusFastReply[] };
  'query-dirty-rate': { args: QueryDirtyRateArgs; reply: QueryDirtyRateReply };
  'query-jobs': { args: Empty; reply: QueryJobsReply[] };
  'query-kvm': { args: Empty; reply: QueryKvmReply };
  'query-machines': { args: QueryMachinesArgs; reply: QueryMachinesReply[] };
  'query-migrate': { args: Empty; reply: QueryMigrateReply };
  'query-migrate-capabilities': { args: Empty; reply: MigrateSetCapabilitiesArgsCapabilities[] };
  'query-migrate-parameters': { args: Empty; reply: QueryMigrateParametersReply };
  'query-name': { args: Empty; reply: QueryNameReply };
  'query-named-block-nodes': { args: QueryNamedBlockNodesArgs; reply: QueryBlockReplyInserted[] };
  'query-pci': { args: Empty; reply: QueryPciReply[] };
  'query-status': { args: Empty; reply: QueryStatusReply };
  'query-uuid': { args: Empty; reply: QueryUuidReply };
  'query-version': { args: Empty; reply: QueryVersionReply };
  'query-yank': { args: Empty; reply: QueryYankReply[] };
  quit: { args: Empty; reply: Empty };
  set_link: { args: SetLinkArgs; reply: Empty };
  stop: { args: Empty; reply: Empty };
  system_powerdown: { args: Empty; reply: Empty };
  system_reset: { args: Empty; reply: Empty };
  yank: { args: YankArgs; reply: Empty };
}

/** What each event carries. */
export interface Events {
  BALLOON_CHANGE: BalloonChangeData;
  BLOCK_EXPORT_DELETED: BlockExportDeletedData;
  BLOCK_IO_ERROR: BlockIoErrorData;
  BLOCK_JOB_CANCELLED: BlockJobCancelledData;
  BLOCK_JOB_COMPLETED: BlockJobCompletedData;
  BLOCK_JOB_ERROR: BlockJobErrorData;
  BLOCK_JOB_PENDING: BlockJobPendingData;
  BLOCK_JOB_READY: BlockJobReadyData;
  DEVICE_DELETED: DeviceDeletedData;
  DEVICE_UNPLUG_GUEST_ERROR: DeviceUnplugGuestErrorData;
  GUEST_CRASHLOADED: GuestCrashloadedData;
  GUEST_PANICKED: GuestPanickedData;
  JOB_STATUS_CHANGE: JobStatusChangeData;
  MEMORY_FAILURE: MemoryFailureData;
  MIGRATION: MigrationData;
  MIGRATION_PASS: MigrationPassData;
  NIC_RX_FILTER_CHANGED: NicRxFilterChangedData;
  POWERDOWN: Empty;
  RESET: ResetData;
  RESUME: Empty;
  SHUTDOWN: ShutdownData;
  STOP: Empty;
  UNPLUG_PRIMARY: UnplugPrimaryData;
  WATCHDOG: WatchdogData;
}

/** Commands that QEMU also carries out of band, while its main loop hangs. */
export type OobCommand = 'migrate-pause' | 'migrate-recover' | 'query-yank' | 'yank';

/** The names in Events, for code that has to tell them from others at run time. */
export const eventNames = ['BALLOON_CHANGE', 'BLOCK_EXPORT_DELETED', 'BLOCK_IO_ERROR', 'BLOCK_JOB_CANCELLED', 'BLOCK_JOB_COMPLETED', 'BLOCK_JOB_ERROR', 'BLOCK_JOB_PENDING', 'BLOCK_JOB_READY', 'DEVICE_DELETED', 'DEVICE_UNPLUG_GUEST_ERROR', 'GUEST_CRASHLOADED', 'GUEST_PANICKED', 'JOB_STATUS_CHANGE', 'MEMORY_FAILURE', 'MIGRATION', 'MIGRATION_PASS', 'NIC_RX_FILTER_CHANGED', 'POWERDOWN', 'RESET', 'RESUME', 'SHUTDOWN', 'STOP', 'UNPLUG_PRIMARY', 'WATCHDOG'] as const satisfies (keyof Events)[];

type AddFdArgs = {
  'fdset-id'?: number;
  opaque?: string;
};

type AddFdReply = {
  'fdset-id': number;
  fd: number;
};

type AnnounceSelfArgs = {
  initial: number;
  max: number;
  rounds: number;
  step: number;
  interfaces?: string[];
  id?: string;
};

type BalloonArgs = {
  value: number;
};

type BlockExportAddArgs = {
  id: string;
  'fixed-iothread'?: boolean;
  iothread?: string;
  'node-name': string;
  writable?: boolean;
  writethrough?: boolean;
  /** absent in 7.2.22 */ 'allow-inactive'?: boolean;
} & (
  | ({ type: 'nbd' } & BlockExportAddArgsNbd)
  | ({ type: 'vhost-user-blk' } & BlockExportAddArgsVhostUserBlk)
  | ({ type: 'fuse' } & BlockExportAddArgsFuse)
  | ({ type: 'vduse-blk' } & BlockExportAddArgsVduseBlk)
);

type BlockExportAddArgsNbd = {
  name?: string;
  description?: string;
  bitmaps?: BlockExportAddArgsNbdBitmaps[];
  'allocation-depth'?: boolean;
};

type BlockExportAddArgsNbdBitmaps = string | BlockExportAddArgsNbdBitmaps2;

type BlockExportAddArgsNbdBitmaps2 = {
  node: string;
  name: string;
};

type BlockExportAddArgsVhostUserBlk = {
  addr: BlockExportAddArgsVhostUserBlkAddr;
  'logical-block-size'?: number;
  'num-queues'?: number;
};

type BlockExportAddArgsVhostUserBlkAddr = 
  | ({ type: 'inet' } & BlockExportAddArgsVhostUserBlkAddrInet)
  | ({ type: 'unix' } & BlockExportAddArgsVhostUserBlkAddrUnix)
  | ({ type: 'vsock' } & BlockExportAddArgsVhostUserBlkAddrVsock)
  | ({ type: 'fd' } & BlockExportAddArgsVhostUserBlkAddrFd);

type BlockExportAddArgsVhostUserBlkAddrInet = {
  host: string;
  port: string;
  numeric?: boolean;
  to?: number;
  ipv4?: boolean;
  ipv6?: boolean;
  'keep-alive'?: boolean;
  mptcp?: boolean;
};

type BlockExportAddArgsVhostUserBlkAddrUnix = {
  path: string;
  abstract?: boolean;
  tight?: boolean;
};

type BlockExportAddArgsVhostUserBlkAddrVsock = {
  cid: string;
  port: string;
};

type BlockExportAddArgsVhostUserBlkAddrFd = {
  str: string;
};

type BlockExportAddArgsFuse = {
  mountpoint: string;
  growable?: boolean;
  'allow-other'?: BlockExportAddArgsFuseAllowOther;
};

type BlockExportAddArgsFuseAllowOther = 
  | 'off'
  | 'on'
  | 'auto';

type BlockExportAddArgsVduseBlk = {
  name: string;
  'num-queues'?: number;
  'queue-size'?: number;
  'logical-block-size'?: number;
  serial?: string;
};

type BlockExportDelArgs = {
  id: string;
  mode?: BlockExportDelArgsMode;
};

type BlockExportDelArgsMode = 
  | 'safe'
  | 'hard';

type BlockJobCancelArgs = {
  device: string;
  force?: boolean;
};

type BlockdevAddArgs = {
  'node-name'?: string;
  discard?: BlockdevAddArgsDiscard;
  cache?: BlockdevAddArgsCache;
  /** absent in 7.2.22 */ active?: boolean;
  'read-only'?: boolean;
  'auto-read-only'?: boolean;
  'force-share'?: boolean;
  'detect-zeroes'?: BlockdevAddArgsDetectZeroes;
} & (
  | ({ driver: 'copy-on-read' } & BlockdevAddArgsCopyOnRead)
  | ({ driver: 'file' } & BlockdevAddArgsFile)
  | ({ driver: 'host_device' } & BlockdevAddArgsFile)
  | ({ driver: 'nbd' } & BlockdevAddArgsNbd)
  | ({ driver: 'null-co' } & BlockdevAddArgsNullCo)
  | ({ driver: 'qcow2' } & BlockdevAddArgsQcow2)
  | ({ driver: 'raw' } & BlockdevAddArgsRaw)
  | ({ driver: 'throttle' } & BlockdevAddArgsThrottle)
);

type BlockdevAddArgsDiscard = 
  | 'ignore'
  | 'unmap';

type BlockdevAddArgsCache = {
  direct?: boolean;
  'no-flush'?: boolean;
};

type BlockdevAddArgsDetectZeroes = 
  | 'off'
  | 'on'
  | 'unmap';

type BlockdevAddArgsCopyOnRead = {
  file: BlockdevAddArgsCopyOnReadFile;
  bottom?: string;
};

type BlockdevAddArgsCopyOnReadFile = BlockdevAddArgs | string;

type BlockdevAddArgsFile = {
  filename: string;
  'pr-manager'?: string;
  locking?: BlockdevAddArgsFileLocking;
  aio?: BlockdevAddArgsFileAio;
  'aio-max-batch'?: number;
  'drop-cache'?: boolean;
  'x-check-cache-dropped'?: boolean;
};

type BlockdevAddArgsFileLocking = 
  | 'auto'
  | 'on'
  | 'off';

type BlockdevAddArgsFileAio = 
  | 'threads'
  | 'native'
  | 'io_uring';

type BlockdevAddArgsNbd = {
  server: BlockExportAddArgsVhostUserBlkAddr;
  export?: string;
  'tls-creds'?: string;
  'tls-hostname'?: string;
  'x-dirty-bitmap'?: string;
  'reconnect-delay'?: number;
  'open-timeout'?: number;
};

type BlockdevAddArgsNullCo = {
  size?: number;
  'latency-ns'?: number;
  'read-zeroes'?: boolean;
};

type BlockdevAddArgsQcow2 = {
  file: BlockdevAddArgsCopyOnReadFile;
  backing?: BlockdevAddArgsQcow2Backing;
  'lazy-refcounts'?: boolean;
  'pass-discard-request'?: boolean;
  'pass-discard-snapshot'?: boolean;
  'pass-discard-other'?: boolean;
  /** absent in 7.2.22 */ 'discard-no-unref'?: boolean;
  'overlap-check'?: BlockdevAddArgsQcow2OverlapCheck;
  'cache-size'?: number;
  'l2-cache-size'?: number;
  'l2-cache-entry-size'?: number;
  'refcount-cache-size'?: number;
  'cache-clean-interval'?: number;
  encrypt?: BlockdevAddArgsQcow2Encrypt;
  'data-file'?: BlockdevAddArgsCopyOnReadFile;
};

type BlockdevAddArgsQcow2Backing = BlockdevAddArgs | string | null;

type BlockdevAddArgsQcow2OverlapCheck = BlockdevAddArgsQcow2OverlapCheck2 | BlockdevAddArgsQcow2OverlapCheck2Template;

type BlockdevAddArgsQcow2OverlapCheck2 = {
  template?: BlockdevAddArgsQcow2OverlapCheck2Template;
  'main-header'?: boolean;
  'active-l1'?: boolean;
  'active-l2'?: boolean;
  'refcount-table'?: boolean;
  'refcount-block'?: boolean;
  'snapshot-table'?: boolean;
  'inactive-l1'?: boolean;
  'inactive-l2'?: boolean;
  'bitmap-directory'?: boolean;
};

type BlockdevAddArgsQcow2OverlapCheck2Template = 
  | 'none'
  | 'constant'
  | 'cached'
  | 'all';

type BlockdevAddArgsQcow2Encrypt = 
  | ({ format: 'aes' } & BlockdevAddArgsQcow2EncryptAes)
  | ({ format: 'luks' } & BlockdevAddArgsQcow2EncryptLuks);

type BlockdevAddArgsQcow2EncryptAes = {
  'key-secret'?: string;
};

type BlockdevAddArgsQcow2EncryptLuks = {
  'key-secret'?: string;
};

type BlockdevAddArgsRaw = {
  file: BlockdevAddArgsCopyOnReadFile;
  offset?: number;
  size?: number;
};

type BlockdevAddArgsThrottle = {
  'throttle-group': string;
  file: BlockdevAddArgsCopyOnReadFile;
};

type BlockdevDelArgs = {
  'node-name': string;
};

type BlockdevMirrorArgs = {
  'job-id'?: string;
  device: string;
  target: string;
  replaces?: string;
  sync: BlockdevMirrorArgsSync;
  speed?: number;
  granularity?: number;
  'buf-size'?: number;
  'on-source-error'?: BlockdevMirrorArgsOnSourceError;
  'on-target-error'?: BlockdevMirrorArgsOnSourceError;
  'filter-node-name'?: string;
  'copy-mode'?: BlockdevMirrorArgsCopyMode;
  'auto-finalize'?: boolean;
  'auto-dismiss'?: boolean;
};

type BlockdevMirrorArgsSync = 
  | 'top'
  | 'full'
  | 'none'
  | 'incremental'
  | 'bitmap';

type BlockdevMirrorArgsOnSourceError = 
  | 'report'
  | 'ignore'
  | 'enospc'
  | 'stop'
  | 'auto';

type BlockdevMirrorArgsCopyMode = 
  | 'background'
  | 'write-blocking';

type CalcDirtyRateArgs = {
  'calc-time': number;
  /** absent in 7.2.22 */ 'calc-time-unit'?: CalcDirtyRateArgsCalcTimeUnit;
  'sample-pages'?: number;
  mode?: CalcDirtyRateArgsMode;
};

type CalcDirtyRateArgsCalcTimeUnit = 
  | 'second'
  | 'millisecond';

type CalcDirtyRateArgsMode = 
  | 'page-sampling'
  | 'dirty-ring'
  | 'dirty-bitmap';

type ClosefdArgs = {
  fdname: string;
};

type DeviceAddArgs = {
  driver: string;
  bus?: string;
  id?: string;
};

type DeviceDelArgs = {
  id: string;
};

type GetfdArgs = {
  fdname: string;
};

type HumanMonitorCommandArgs = {
  'command-line': string;
  'cpu-index'?: number;
};

type JobCancelArgs = {
  id: string;
};

type JobCompleteArgs = {
  id: string;
};

type JobDismissArgs = {
  id: string;
};

type MigrateArgs = {
  uri?: string;
  /** absent in 7.2.22 */ channels?: MigrateArgsChannels[];
  detach?: boolean;
  resume?: boolean;
  /** absent in 10.0.2 */ blk?: boolean;
  /** absent in 10.0.2 */ inc?: boolean;
};

type MigrateArgsChannels = {
  'channel-type': MigrateArgsChannelsChannelType;
  addr: MigrateArgsChannelsAddr;
};

type MigrateArgsChannelsChannelType = 
  | 'main'
  | 'cpr';

type MigrateArgsChannelsAddr = 
  | ({ transport: 'socket' } & MigrateArgsChannelsAddrSocket)
  | ({ transport: 'exec' } & MigrateArgsChannelsAddrExec)
  | ({ transport: 'rdma' } & MigrateArgsChannelsAddrSocketInet)
  | ({ transport: 'file' } & MigrateArgsChannelsAddrFile);

type MigrateArgsChannelsAddrSocket = 
  | ({ type: 'inet' } & MigrateArgsChannelsAddrSocketInet)
  | ({ type: 'unix' } & MigrateArgsChannelsAddrSocketUnix)
  | ({ type: 'vsock' } & MigrateArgsChannelsAddrSocketVsock)
  | ({ type: 'fd' } & MigrateArgsChannelsAddrSocketFd);

type MigrateArgsChannelsAddrSocketInet = {
  host: string;
  port: string;
  numeric?: boolean;
  to?: number;
  ipv4?: boolean;
  ipv6?: boolean;
  'keep-alive'?: boolean;
  mptcp?: boolean;
};

type MigrateArgsChannelsAddrSocketUnix = {
  path: string;
  abstract?: boolean;
  tight?: boolean;
};

type MigrateArgsChannelsAddrSocketVsock = {
  cid: string;
  port: string;
};

type MigrateArgsChannelsAddrSocketFd = {
  str: string;
};

type MigrateArgsChannelsAddrExec = {
  args: string[];
};

type MigrateArgsChannelsAddrFile = {
  filename: string;
  offset: number;
};

type MigrateContinueArgs = {
  state: MigrateContinueArgsState;
};

type MigrateContinueArgsState = 
  | 'none'
  | 'setup'
  | 'cancelling'
  | 'cancelled'
  | 'active'
  | 'postcopy-active'
  | 'postcopy-paused'
  | /** absent in 7.2.22 */ 'postcopy-recover-setup'
  | 'postcopy-recover'
  | 'completed'
  | 'failed'
  | 'colo'
  | 'pre-switchover'
  | 'device'
  | 'wait-unplug';

type MigrateIncomingArgs = {
  uri?: string;
  /** absent in 7.2.22 */ channels?: MigrateArgsChannels[];
  /** absent in 7.2.22 */ 'exit-on-error'?: boolean;
};

type MigrateRecoverArgs = {
  uri: string;
};

type MigrateSetCapabilitiesArgs = {
  capabilities: MigrateSetCapabilitiesArgsCapabilities[];
};

type MigrateSetCapabilitiesArgsCapabilities = {
  capability: MigrateSetCapabilitiesArgsCapabilitiesCapability;
  state: boolean;
};

type MigrateSetCapabilitiesArgsCapabilitiesCapability = 
  | 'xbzrle'
  | 'rdma-pin-all'
  | 'auto-converge'
  | 'zero-blocks'
  | 'events'
  | 'postcopy-ram'
  | 'x-colo'
  | 'release-ram'
  | 'return-path'
  | 'pause-before-switchover'
  | 'multifd'
  | 'dirty-bitmaps'
  | 'postcopy-blocktime'
  | 'late-block-activate'
  | 'x-ignore-shared'
  | 'validate-uuid'
  | 'background-snapshot'
  | 'zero-copy-send'
  | 'postcopy-preempt'
  | /** absent in 7.2.22 */ 'switchover-ack'
  | /** absent in 7.2.22 */ 'dirty-limit'
  | /** absent in 7.2.22 */ 'mapped-ram'
  | /** absent in 10.0.2 */ 'compress'
  | /** absent in 10.0.2 */ 'block';

type MigrateSetParametersArgs = {
  'announce-initial'?: number;
  'announce-max'?: number;
  'announce-rounds'?: number;
  'announce-step'?: number;
  'throttle-trigger-threshold'?: number;
  'cpu-throttle-initial'?: number;
  'cpu-throttle-increment'?: number;
  'cpu-throttle-tailslow'?: boolean;
  'tls-creds'?: MigrateSetParametersArgsTlsCreds;
  'tls-hostname'?: MigrateSetParametersArgsTlsCreds;
  'tls-authz'?: MigrateSetParametersArgsTlsCreds;
  'max-bandwidth'?: number;
  /** absent in 7.2.22 */ 'avail-switchover-bandwidth'?: number;
  'downtime-limit'?: number;
  'x-checkpoint-delay'?: number;
  'multifd-channels'?: number;
  'xbzrle-cache-size'?: number;
  'max-postcopy-bandwidth'?: number;
  'max-cpu-throttle'?: number;
  'multifd-compression'?: MigrateSetParametersArgsMultifdCompression;
  'multifd-zlib-level'?: number;
  /** absent in 7.2.22 */ 'multifd-qatzip-level'?: number;
  'multifd-zstd-level'?: number;
  'block-bitmap-mapping'?: MigrateSetParametersArgsBlockBitmapMapping[];
  /** absent in 7.2.22 */ 'x-vcpu-dirty-limit-period'?: number;
  /** absent in 7.2.22 */ 'vcpu-dirty-limit'?: number;
  /** absent in 7.2.22 */ mode?: MigrateSetParametersArgsMode;
  /** absent in 7.2.22 */ 'zero-page-detection'?: MigrateSetParametersArgsZeroPageDetection;
  /** absent in 7.2.22 */ 'direct-io'?: boolean;
  /** absent in 10.0.2 */ 'compress-level'?: number;
  /** absent in 10.0.2 */ 'compress-threads'?: number;
  /** absent in 10.0.2 */ 'compress-wait-thread'?: boolean;
  /** absent in 10.0.2 */ 'decompress-threads'?: number;
  /** absent in 10.0.2 */ 'block-incremental'?: boolean;
};

type MigrateSetParametersArgsTlsCreds = string | null;

type MigrateSetParametersArgsMultifdCompression = 
  | 'none'
  | 'zlib'
  | 'zstd';

type MigrateSetParametersArgsBlockBitmapMapping = {
  'node-name': string;
  alias: string;
  bitmaps: MigrateSetParametersArgsBlockBitmapMappingBitmaps[];
};

type MigrateSetParametersArgsBlockBitmapMappingBitmaps = {
  name: string;
  alias: string;
  transform?: MigrateSetParametersArgsBlockBitmapMappingBitmapsTransform;
};

type MigrateSetParametersArgsBlockBitmapMappingBitmapsTransform = {
  persistent?: boolean;
};

type MigrateSetParametersArgsMode = 
  | 'normal'
  | 'cpr-reboot'
  | 'cpr-transfer';

type MigrateSetParametersArgsZeroPageDetection = 
  | 'none'
  | 'legacy'
  | 'multifd';

type NbdServerStartArgs = {
  /** absent in 7.2.22 */ 'handshake-max-seconds'?: number;
  'tls-creds'?: string;
  'tls-authz'?: string;
  'max-connections'?: number;
  addr: NbdServerStartArgsAddr;
};

type NbdServerStartArgsAddr = 
  | ({ type: 'inet' } & NbdServerStartArgsAddrInet)
  | ({ type: 'unix' } & NbdServerStartArgsAddrUnix)
  | ({ type: 'vsock' } & NbdServerStartArgsAddrVsock)
  | ({ type: 'fd' } & NbdServerStartArgsAddrFd);

type NbdServerStartArgsAddrInet = {
  data: BlockExportAddArgsVhostUserBlkAddrInet;
};

type NbdServerStartArgsAddrUnix = {
  data: BlockExportAddArgsVhostUserBlkAddrUnix;
};

type NbdServerStartArgsAddrVsock = {
  data: BlockExportAddArgsVhostUserBlkAddrVsock;
};

type NbdServerStartArgsAddrFd = {
  data: BlockExportAddArgsVhostUserBlkAddrFd;
};

type NetdevAddArgs = {
  id: string;
} & (
  | ({ type: 'user' } & NetdevAddArgsUser)
  | ({ type: 'tap' } & NetdevAddArgsTap)
  | ({ type: 'socket' } & NetdevAddArgsSocket)
  | ({ type: 'stream' } & NetdevAddArgsStream)
  | ({ type: 'dgram' } & NetdevAddArgsDgram)
  | ({ type: 'hubport' } & NetdevAddArgsHubport)
);

type NetdevAddArgsUser = {
  hostname?: string;
  restrict?: boolean;
  ipv4?: boolean;
  ipv6?: boolean;
  ip?: string;
  net?: string;
  host?: string;
  tftp?: string;
  bootfile?: string;
  dhcpstart?: string;
  dns?: string;
  dnssearch?: NetdevAddArgsUserDnssearch[];
  domainname?: string;
  'ipv6-prefix'?: string;
  'ipv6-prefixlen'?: number;
  'ipv6-host'?: string;
  'ipv6-dns'?: string;
  smb?: string;
  smbserver?: string;
  hostfwd?: NetdevAddArgsUserDnssearch[];
  guestfwd?: NetdevAddArgsUserDnssearch[];
  'tftp-server-name'?: string;
};

type NetdevAddArgsUserDnssearch = {
  str: string;
};

type NetdevAddArgsTap = {
  ifname?: string;
  fd?: string;
  fds?: string;
  script?: string;
  downscript?: string;
  br?: string;
  helper?: string;
  sndbuf?: number;
  vnet_hdr?: boolean;
  vhost?: boolean;
  vhostfd?: string;
  vhostfds?: string;
  vhostforce?: boolean;
  queues?: number;
  'poll-us'?: number;
};

type NetdevAddArgsSocket = {
  fd?: string;
  listen?: string;
  connect?: string;
  mcast?: string;
  localaddr?: string;
  udp?: string;
};

type NetdevAddArgsStream = {
  addr: BlockExportAddArgsVhostUserBlkAddr;
  server?: boolean;
  /** absent in 7.2.22 */ reconnect?: number;
  /** absent in 7.2.22 */ 'reconnect-ms'?: number;
};

type NetdevAddArgsDgram = {
  local?: BlockExportAddArgsVhostUserBlkAddr;
  remote?: BlockExportAddArgsVhostUserBlkAddr;
};

type NetdevAddArgsHubport = {
  hubid: number;
  netdev?: string;
};

type NetdevDelArgs = {
  id: string;
};

type ObjectAddArgs = {
  id: string;
} & (
  | ({ 'qom-type': 'authz-list' } & ObjectAddArgsAuthzList)
  | ({ 'qom-type': 'authz-simple' } & ObjectAddArgsAuthzSimple)
  | ({ 'qom-type': 'iothread' } & ObjectAddArgsIothread)
  | ({ 'qom-type': 'memory-backend-file' } & ObjectAddArgsMemoryBackendFile)
  | ({ 'qom-type': 'memory-backend-memfd' } & ObjectAddArgsMemoryBackendMemfd)
  | ({ 'qom-type': 'memory-backend-ram' } & ObjectAddArgsMemoryBackendRam)
  | ({ 'qom-type': 'rng-random' } & ObjectAddArgsRngRandom)
  | ({ 'qom-type': 'secret' } & ObjectAddArgsSecret)
  | ({ 'qom-type': 'throttle-group' } & ObjectAddArgsThrottleGroup)
  | ({ 'qom-type': 'tls-creds-psk' } & ObjectAddArgsTlsCredsPsk)
  | ({ 'qom-type': 'tls-creds-x509' } & ObjectAddArgsTlsCredsX509)
);

type ObjectAddArgsAuthzList = {
  policy?: ObjectAddArgsAuthzListPolicy;
  rules?: ObjectAddArgsAuthzListRules[];
};

type ObjectAddArgsAuthzListPolicy = 
  | 'deny'
  | 'allow';

type ObjectAddArgsAuthzListRules = {
  match: string;
  policy: ObjectAddArgsAuthzListPolicy;
  format?: ObjectAddArgsAuthzListRulesFormat;
};

type ObjectAddArgsAuthzListRulesFormat = 
  | 'exact'
  | 'glob';

type ObjectAddArgsAuthzSimple = {
  identity: string;
};

type ObjectAddArgsIothread = {
  'aio-max-batch'?: number;
  'thread-pool-min'?: number;
  'thread-pool-max'?: number;
  'poll-max-ns'?: number;
  'poll-grow'?: number;
  'poll-shrink'?: number;
};

type ObjectAddArgsMemoryBackendFile = {
  dump?: boolean;
  'host-nodes'?: number[];
  merge?: boolean;
  policy?: ObjectAddArgsMemoryBackendFilePolicy;
  prealloc?: boolean;
  'prealloc-threads'?: number;
  'prealloc-context'?: string;
  share?: boolean;
  reserve?: boolean;
  size: number;
  'x-use-canonical-path-for-ramblock-id'?: boolean;
  align?: number;
  /** absent in 7.2.22 */ offset?: number;
  'discard-data'?: boolean;
  'mem-path': string;
  pmem?: boolean;
  readonly?: boolean;
  /** absent in 7.2.22 */ rom?: ObjectAddArgsMemoryBackendFileRom;
};

type ObjectAddArgsMemoryBackendFilePolicy = 
  | 'default'
  | 'preferred'
  | 'bind'
  | 'interleave';

type ObjectAddArgsMemoryBackendFileRom = 
  | 'auto'
  | 'on'
  | 'off';

type ObjectAddArgsMemoryBackendMemfd = {
  dump?: boolean;
  'host-nodes'?: number[];
  merge?: boolean;
  policy?: ObjectAddArgsMemoryBackendFilePolicy;
  prealloc?: boolean;
  'prealloc-threads'?: number;
  'prealloc-context'?: string;
  share?: boolean;
  reserve?: boolean;
  size: number;
  'x-use-canonical-path-for-ramblock-id'?: boolean;
  hugetlb?: boolean;
  hugetlbsize?: number;
  seal?: boolean;
};

type ObjectAddArgsMemoryBackendRam = {
  dump?: boolean;
  'host-nodes'?: number[];
  merge?: boolean;
  policy?: ObjectAddArgsMemoryBackendFilePolicy;
  prealloc?: boolean;
  'prealloc-threads'?: number;
  'prealloc-context'?: string;
  share?: boolean;
  reserve?: boolean;
  size: number;
  'x-use-canonical-path-for-ramblock-id'?: boolean;
};

type ObjectAddArgsRngRandom = {
  opened?: boolean;
  filename?: string;
};

type ObjectAddArgsSecret = {
  format?: ObjectAddArgsSecretFormat;
  keyid?: string;
  iv?: string;
  data?: string;
  file?: string;
  /** absent in 10.0.2 */ loaded?: boolean;
};

type ObjectAddArgsSecretFormat = 
  | 'raw'
  | 'base64';

type ObjectAddArgsThrottleGroup = {
  limits?: ObjectAddArgsThrottleGroupLimits;
  'x-iops-total'?: number;
  'x-iops-total-max'?: number;
  'x-iops-total-max-length'?: number;
  'x-iops-read'?: number;
  'x-iops-read-max'?: number;
  'x-iops-read-max-length'?: number;
  'x-iops-write'?: number;
  'x-iops-write-max'?: number;
  'x-iops-write-max-length'?: number;
  'x-bps-total'?: number;
  'x-bps-total-max'?: number;
  'x-bps-total-max-length'?: number;
  'x-bps-read'?: number;
  'x-bps-read-max'?: number;
  'x-bps-read-max-length'?: number;
  'x-bps-write'?: number;
  'x-bps-write-max'?: number;
  'x-bps-write-max-length'?: number;
  'x-iops-size'?: number;
};

type ObjectAddArgsThrottleGroupLimits = {
  'iops-total'?: number;
  'iops-total-max'?: number;
  'iops-total-max-length'?: number;
  'iops-read'?: number;
  'iops-read-max'?: number;
  'iops-read-max-length'?: number;
  'iops-write'?: number;
  'iops-write-max'?: number;
  'iops-write-max-length'?: number;
  'bps-total'?: number;
  'bps-total-max'?: number;
  'bps-total-max-length'?: number;
  'bps-read'?: number;
  'bps-read-max'?: number;
  'bps-read-max-length'?: number;
  'bps-write'?: number;
  'bps-write-max'?: number;
  'bps-write-max-length'?: number;
  'iops-size'?: number;
};

type ObjectAddArgsTlsCredsPsk = {
  'verify-peer'?: boolean;
  dir?: string;
  endpoint?: ObjectAddArgsTlsCredsPskEndpoint;
  priority?: string;
  username?: string;
  /** absent in 10.0.2 */ loaded?: boolean;
};

type ObjectAddArgsTlsCredsPskEndpoint = 
  | 'client'
  | 'server';

type ObjectAddArgsTlsCredsX509 = {
  'verify-peer'?: boolean;
  dir?: string;
  endpoint?: ObjectAddArgsTlsCredsPskEndpoint;
  priority?: string;
  'sanity-check'?: boolean;
  passwordid?: string;
  /** absent in 10.0.2 */ loaded?: boolean;
};

type ObjectDelArgs = {
  id: string;
};

type QmpCapabilitiesArgs = {
  enable?: QmpCapabilitiesArgsEnable[];
};

type QmpCapabilitiesArgsEnable = 
  | 'oob';

type QueryBalloonReply = {
  actual: number;
};

type QueryBlockReply = {
  device: string;
  qdev?: string;
  type: string;
  removable: boolean;
  locked: boolean;
  inserted?: QueryBlockReplyInserted;
  tray_open?: boolean;
  'io-status'?: QueryBlockReplyIoStatus;
};

type QueryBlockReplyInserted = {
  file: string;
  'node-name'?: string;
  ro: boolean;
  drv: string;
  backing_file?: string;
  backing_file_depth: number;
  /** absent in 7.2.22 */ active?: boolean;
  encrypted: boolean;
  detect_zeroes: BlockdevAddArgsDetectZeroes;
  bps: number;
  bps_rd: number;
  bps_wr: number;
  iops: number;
  iops_rd: number;
  iops_wr: number;
  image: QueryBlockReplyInsertedImage;
  bps_max?: number;
  bps_rd_max?: number;
  bps_wr_max?: number;
  iops_max?: number;
  iops_rd_max?: number;
  iops_wr_max?: number;
  bps_max_length?: number;
  bps_rd_max_length?: number;
  bps_wr_max_length?: number;
  iops_max_length?: number;
  iops_rd_max_length?: number;
  iops_wr_max_length?: number;
  iops_size?: number;
  group?: string;
  cache: QueryBlockReplyInsertedCache;
  write_threshold: number;
  'dirty-bitmaps'?: QueryBlockReplyInsertedDirtyBitmaps[];
};

type QueryBlockReplyInsertedImage = {
  filename: string;
  format: string;
  'dirty-flag'?: boolean;
  'actual-size'?: number;
  'virtual-size': number;
  'cluster-size'?: number;
  encrypted?: boolean;
  compressed?: boolean;
  'backing-filename'?: string;
  'full-backing-filename'?: string;
  'backing-filename-format'?: string;
  snapshots?: QueryBlockReplyInsertedImageSnapshots[];
  'format-specific'?: QueryBlockReplyInsertedImageFormatSpecific;
  'backing-image'?: QueryBlockReplyInsertedImage;
};

type QueryBlockReplyInsertedImageSnapshots = {
  id: string;
  name: string;
  'vm-state-size': number;
  'date-sec': number;
  'date-nsec': number;
  'vm-clock-sec': number;
  'vm-clock-nsec': number;
  icount?: number;
};

type QueryBlockReplyInsertedImageFormatSpecific = 
  | ({ type: 'qcow2' } & QueryBlockReplyInsertedImageFormatSpecificQcow2)
  | ({ type: 'vmdk' } & QueryBlockReplyInsertedImageFormatSpecificVmdk)
  | ({ type: 'luks' } & QueryBlockReplyInsertedImageFormatSpecificLuks)
  | ({ type: 'rbd' } & QueryBlockReplyInsertedImageFormatSpecificRbd)
  | ({ type: 'file' } & QueryBlockReplyInsertedImageFormatSpecificFile);

type QueryBlockReplyInsertedImageFormatSpecificQcow2 = {
  data: QueryBlockReplyInsertedImageFormatSpecificQcow2Data;
};

type QueryBlockReplyInsertedImageFormatSpecificQcow2Data = {
  compat: string;
  'data-file'?: string;
  'data-file-raw'?: boolean;
  'extended-l2'?: boolean;
  'lazy-refcounts'?: boolean;
  corrupt?: boolean;
  'refcount-bits': number;
  encrypt?: QueryBlockReplyInsertedImageFormatSpecificQcow2DataEncrypt;
  bitmaps?: QueryBlockReplyInsertedImageFormatSpecificQcow2DataBitmaps[];
  'compression-type': QueryBlockReplyInsertedImageFormatSpecificQcow2DataCompressionType;
};

type QueryBlockReplyInsertedImageFormatSpecificQcow2DataEncrypt = 
  | ({ format: 'aes' })
  | ({ format: 'luks' } & QueryBlockReplyInsertedImageFormatSpecificQcow2DataEncryptLuks);

type QueryBlockReplyInsertedImageFormatSpecificQcow2DataEncryptLuks = {
  'cipher-alg': QueryBlockReplyInsertedImageFormatSpecificQcow2DataEncryptLuksCipherAlg;
  'cipher-mode': QueryBlockReplyInsertedImageFormatSpecificQcow2DataEncryptLuksCipherMode;
  'ivgen-alg': QueryBlockReplyInsertedImageFormatSpecificQcow2DataEncryptLuksIvgenAlg;
  'ivgen-hash-alg'?: QueryBlockReplyInsertedImageFormatSpecificQcow2DataEncryptLuksIvgenHashAlg;
  'hash-alg': QueryBlockReplyInsertedImageFormatSpecificQcow2DataEncryptLuksIvgenHashAlg;
  /** absent in 7.2.22 */ 'detached-header'?: boolean;
  'payload-offset': number;
  'master-key-iters': number;
  uuid: string;
  slots: QueryBlockReplyInsertedImageFormatSpecificQcow2DataEncryptLuksSlots[];
};

type QueryBlockReplyInsertedImageFormatSpecificQcow2DataEncryptLuksCipherAlg = 
  | 'aes-128'
  | 'aes-192'
  | 'aes-256'
  | 'des'
  | '3des'
  | 'cast5-128'
  | 'serpent-128'
  | 'serpent-192'
  | 'serpent-256'
  | 'twofish-128'
  | 'twofish-192'
  | 'twofish-256'
  | /** absent in 7.2.22 */ 'sm4';

type QueryBlockReplyInsertedImageFormatSpecificQcow2DataEncryptLuksCipherMode = 
  | 'ecb'
  | 'cbc'
  | 'xts'
  | 'ctr';

type QueryBlockReplyInsertedImageFormatSpecificQcow2DataEncryptLuksIvgenAlg = 
  | 'plain'
  | 'plain64'
  | 'essiv';

type QueryBlockReplyInsertedImageFormatSpecificQcow2DataEncryptLuksIvgenHashAlg = 
  | 'md5'
  | 'sha1'
  | 'sha224'
  | 'sha256'
  | 'sha384'
  | 'sha512'
  | 'ripemd160'
  | /** absent in 7.2.22 */ 'sm3';

type QueryBlockReplyInsertedImageFormatSpecificQcow2DataEncryptLuksSlots = {
  active: boolean;
  iters?: number;
  stripes?: number;
  'key-offset': number;
};

type QueryBlockReplyInsertedImageFormatSpecificQcow2DataBitmaps = {
  name: string;
  granularity: number;
  flags: QueryBlockReplyInsertedImageFormatSpecificQcow2DataBitmapsFlags[];
};

type QueryBlockReplyInsertedImageFormatSpecificQcow2DataBitmapsFlags = 
  | 'in-use'
  | 'auto';

type QueryBlockReplyInsertedImageFormatSpecificQcow2DataCompressionType = 
  | 'zlib'
  | 'zstd';

type QueryBlockReplyInsertedImageFormatSpecificVmdk = {
  data: QueryBlockReplyInsertedImageFormatSpecificVmdkData;
};

type QueryBlockReplyInsertedImageFormatSpecificVmdkData = {
  'create-type': string;
  cid: number;
  'parent-cid': number;
  extents: QueryBlockReplyInsertedImageFormatSpecificVmdkDataExtents[];
};

type QueryBlockReplyInsertedImageFormatSpecificVmdkDataExtents = {
  filename: string;
  format: string;
  'virtual-size': number;
  'cluster-size'?: number;
  compressed?: boolean;
  /** absent in 10.0.2 */ 'dirty-flag'?: boolean;
  /** absent in 10.0.2 */ 'actual-size'?: number;
  /** absent in 10.0.2 */ encrypted?: boolean;
  /** absent in 10.0.2 */ 'backing-filename'?: string;
  /** absent in 10.0.2 */ 'full-backing-filename'?: string;
  /** absent in 10.0.2 */ 'backing-filename-format'?: string;
  /** absent in 10.0.2 */ snapshots?: QueryBlockReplyInsertedImageFormatSpecificVmdkDataExtentsSnapshots[];
  /** absent in 10.0.2 */ 'backing-image'?: QueryBlockReplyInsertedImageFormatSpecificVmdkDataExtentsBackingImage;
  /** absent in 10.0.2 */ 'format-specific'?: QueryBlockReplyInsertedImageFormatSpecificVmdkDataExtentsBackingImageFormatSpecific;
};

type QueryBlockReplyInsertedImageFormatSpecificVmdkDataExtentsSnapshots = {
  id: string;
  name: string;
  'vm-state-size': number;
  'date-sec': number;
  'date-nsec': number;
  'vm-clock-sec': number;
  'vm-clock-nsec': number;
  icount?: number;
};

type QueryBlockReplyInsertedImageFormatSpecificVmdkDataExtentsBackingImage = {
  filename: string;
  format: string;
  'dirty-flag'?: boolean;
  'actual-size'?: number;
  'virtual-size': number;
  'cluster-size'?: number;
  encrypted?: boolean;
  compressed?: boolean;
  'backing-filename'?: string;
  'full-backing-filename'?: string;
  'backing-filename-format'?: string;
  snapshots?: QueryBlockReplyInsertedImageFormatSpecificVmdkDataExtentsSnapshots[];
  'backing-image'?: QueryBlockReplyInsertedImageFormatSpecificVmdkDataExtentsBackingImage;
  'format-specific'?: QueryBlockReplyInsertedImageFormatSpecificVmdkDataExtentsBackingImageFormatSpecific;
};

type QueryBlockReplyInsertedImageFormatSpecificVmdkDataExtentsBackingImageFormatSpecific = 
  | ({ type: 'qcow2' } & QueryBlockReplyInsertedImageFormatSpecificVmdkDataExtentsBackingImageFormatSpecificQcow2)
  | ({ type: 'vmdk' } & QueryBlockReplyInsertedImageFormatSpecificVmdkDataExtentsBackingImageFormatSpecificVmdk)
  | ({ type: 'luks' } & QueryBlockReplyInsertedImageFormatSpecificVmdkDataExtentsBackingImageFormatSpecificLuks)
  | ({ type: 'rbd' } & QueryBlockReplyInsertedImageFormatSpecificVmdkDataExtentsBackingImageFormatSpecificRbd);

type QueryBlockReplyInsertedImageFormatSpecificVmdkDataExtentsBackingImageFormatSpecificQcow2 = {
  data: QueryBlockReplyInsertedImageFormatSpecificVmdkDataExtentsBackingImageFormatSpecificQcow2Data;
};

type QueryBlockReplyInsertedImageFormatSpecificVmdkDataExtentsBackingImageFormatSpecificQcow2Data = {
  compat: string;
  'data-file'?: string;
  'data-file-raw'?: boolean;
  'extended-l2'?: boolean;
  'lazy-refcounts'?: boolean;
  corrupt?: boolean;
  'refcount-bits': number;
  encrypt?: QueryBlockReplyInsertedImageFormatSpecificVmdkDataExtentsBackingImageFormatSpecificQcow2DataEncrypt;
  bitmaps?: QueryBlockReplyInsertedImageFormatSpecificVmdkDataExtentsBackingImageFormatSpecificQcow2DataBitmaps[];
  'compression-type': QueryBlockReplyInsertedImageFormatSpecificVmdkDataExtentsBackingImageFormatSpecificQcow2DataCompressionType;
};

type QueryBlockReplyInsertedImageFormatSpecificVmdkDataExtentsBackingImageFormatSpecificQcow2DataEncrypt = 
  | ({ format: 'aes' })
  | ({ format: 'luks' } & QueryBlockReplyInsertedImageFormatSpecificVmdkDataExtentsBackingImageFormatSpecificQcow2DataEncryptLuks);

type QueryBlockReplyInsertedImageFormatSpecificVmdkDataExtentsBackingImageFormatSpecificQcow2DataEncryptLuks = {
  'cipher-alg': QueryBlockReplyInsertedImageFormatSpecificVmdkDataExtentsBackingImageFormatSpecificQcow2DataEncryptLuksCipherAlg;
  'cipher-mode': QueryBlockReplyInsertedImageFormatSpecificVmdkDataExtentsBackingImageFormatSpecificQcow2DataEncryptLuksCipherMode;
  'ivgen-alg': QueryBlockReplyInsertedImageFormatSpecificVmdkDataExtentsBackingImageFormatSpecificQcow2DataEncryptLuksIvgenAlg;
  'ivgen-hash-alg'?: QueryBlockReplyInsertedImageFormatSpecificVmdkDataExtentsBackingImageFormatSpecificQcow2DataEncryptLuksIvgenHashAlg;
  'hash-alg': QueryBlockReplyInsertedImageFormatSpecificVmdkDataExtentsBackingImageFormatSpecificQcow2DataEncryptLuksIvgenHashAlg;
  'payload-offset': number;
  'master-key-iters': number;
  uuid: string;
  slots: QueryBlockReplyInsertedImageFormatSpecificVmdkDataExtentsBackingImageFormatSpecificQcow2DataEncryptLuksSlots[];
};

type QueryBlockReplyInsertedImageFormatSpecificVmdkDataExtentsBackingImageFormatSpecificQcow2DataEncryptLuksCipherAlg = 
  | 'aes-128'
  | 'aes-192'
  | 'aes-256'
  | 'des'
  | '3des'
  | 'cast5-128'
  | 'serpent-128'
  | 'serpent-192'
  | 'serpent-256'
  | 'twofish-128'
  | 'twofish-192'
  | 'twofish-256';

type QueryBlockReplyInsertedImageFormatSpecificVmdkDataExtentsBackingImageFormatSpecificQcow2DataEncryptLuksCipherMode = 
  | 'ecb'
  | 'cbc'
  | 'xts'
  | 'ctr';

type QueryBlockReplyInsertedImageFormatSpecificVmdkDataExtentsBackingImageFormatSpecificQcow2DataEncryptLuksIvgenAlg = 
  | 'plain'
  | 'plain64'
  | 'essiv';

type QueryBlockReplyInsertedImageFormatSpecificVmdkDataExtentsBackingImageFormatSpecificQcow2DataEncryptLuksIvgenHashAlg = 
  | 'md5'
  | 'sha1'
  | 'sha224'
  | 'sha256'
  | 'sha384'
  | 'sha512'
  | 'ripemd160';

type QueryBlockReplyInsertedImageFormatSpecificVmdkDataExtentsBackingImageFormatSpecificQcow2DataEncryptLuksSlots = {
  active: boolean;
  iters?: number;
  stripes?: number;
  'key-offset': number;
};

type QueryBlockReplyInsertedImageFormatSpecificVmdkDataExtentsBackingImageFormatSpecificQcow2DataBitmaps = {
  name: string;
  granularity: number;
  flags: QueryBlockReplyInsertedImageFormatSpecificVmdkDataExtentsBackingImageFormatSpecificQcow2DataBitmapsFlags[];
};

type QueryBlockReplyInsertedImageFormatSpecificVmdkDataExtentsBackingImageFormatSpecificQcow2DataBitmapsFlags = 
  | 'in-use'
  | 'auto';

type QueryBlockReplyInsertedImageFormatSpecificVmdkDataExtentsBackingImageFormatSpecificQcow2DataCompressionType = 
  | 'zlib'
  | 'zstd';

type QueryBlockReplyInsertedImageFormatSpecificVmdkDataExtentsBackingImageFormatSpecificVmdk = {
  data: QueryBlockReplyInsertedImageFormatSpecificVmdkDataExtentsBackingImageFormatSpecificVmdkData;
};

type QueryBlockReplyInsertedImageFormatSpecificVmdkDataExtentsBackingImageFormatSpecificVmdkData = {
  'create-type': string;
  cid: number;
  'parent-cid': number;
  extents: QueryBlockReplyInsertedImageFormatSpecificVmdkDataExtentsBackingImage[];
};

type QueryBlockReplyInsertedImageFormatSpecificVmdkDataExtentsBackingImageFormatSpecificLuks = {
  data: QueryBlockReplyInsertedImageFormatSpecificVmdkDataExtentsBackingImageFormatSpecificQcow2DataEncryptLuks;
};

type QueryBlockReplyInsertedImageFormatSpecificVmdkDataExtentsBackingImageFormatSpecificRbd = {
  data: QueryBlockReplyInsertedImageFormatSpecificVmdkDataExtentsBackingImageFormatSpecificRbdData;
};

type QueryBlockReplyInsertedImageFormatSpecificVmdkDataExtentsBackingImageFormatSpecificRbdData = {
  'encryption-format'?: QueryBlockReplyInsertedImageFormatSpecificVmdkDataExtentsBackingImageFormatSpecificRbdDataEncryptionFormat;
};

type QueryBlockReplyInsertedImageFormatSpecificVmdkDataExtentsBackingImageFormatSpecificRbdDataEncryptionFormat = 
  | 'luks'
  | 'luks2';

type QueryBlockReplyInsertedImageFormatSpecificLuks = {
  data: QueryBlockReplyInsertedImageFormatSpecificQcow2DataEncryptLuks;
};

type QueryBlockReplyInsertedImageFormatSpecificRbd = {
  data: QueryBlockReplyInsertedImageFormatSpecificRbdData;
};

type QueryBlockReplyInsertedImageFormatSpecificRbdData = {
  'encryption-format'?: QueryBlockReplyInsertedImageFormatSpecificRbdDataEncryptionFormat;
};

type QueryBlockReplyInsertedImageFormatSpecificRbdDataEncryptionFormat = 
  | 'luks'
  | 'luks2'
  | /** absent in 7.2.22 */ 'luks-any';

type QueryBlockReplyInsertedImageFormatSpecificFile = {
  data: QueryBlockReplyInsertedImageFormatSpecificFileData;
};

type QueryBlockReplyInsertedImageFormatSpecificFileData = {
  'extent-size-hint'?: number;
};

type QueryBlockReplyInsertedCache = {
  writeback: boolean;
  direct: boolean;
  'no-flush': boolean;
};

type QueryBlockReplyInsertedDirtyBitmaps = {
  name?: string;
  count: number;
  granularity: number;
  recording: boolean;
  busy: boolean;
  persistent: boolean;
  inconsistent?: boolean;
};

type QueryBlockReplyIoStatus = 
  | 'ok'
  | 'failed'
  | 'nospace';

type QueryBlockExportsReply = {
  id: string;
  type: QueryBlockExportsReplyType;
  'node-name': string;
  'shutting-down': boolean;
};

type QueryBlockExportsReplyType = 
  | 'nbd'
  | 'vhost-user-blk'
  | 'fuse'
  | 'vduse-blk';

type QueryBlockJobsReply = {
  device: string;
  len: number;
  offset: number;
  busy: boolean;
  paused: boolean;
  speed: number;
  'io-status': QueryBlockReplyIoStatus;
  ready: boolean;
  status: QueryBlockJobsReplyStatus;
  'auto-finalize': boolean;
  'auto-dismiss': boolean;
  error?: string;
} & (
  | ({ type: 'commit' })
  | ({ type: 'stream' })
  | ({ type: 'mirror' } & QueryBlockJobsReplyMirror)
  | ({ type: 'backup' })
  | ({ type: 'create' })
  | ({ type: 'amend' })
  | ({ type: 'snapshot-load' })
  | ({ type: 'snapshot-save' })
  | ({ type: 'snapshot-delete' })
);

type QueryBlockJobsReplyStatus = 
  | 'undefined'
  | 'created'
  | 'running'
  | 'paused'
  | 'ready'
  | 'standby'
  | 'waiting'
  | 'pending'
  | 'aborting'
  | 'concluded'
  | 'null';

type QueryBlockJobsReplyMirror = {
  'actively-synced': boolean;
};

type QueryBlockstatsArgs = {
  'query-nodes'?: boolean;
};

type QueryBlockstatsReply = {
  device?: string;
  qdev?: string;
  'node-name'?: string;
  stats: QueryBlockstatsReplyStats;
  'driver-specific'?: QueryBlockstatsReplyDriverSpecific;
  parent?: QueryBlockstatsReply;
  backing?: QueryBlockstatsReply;
};

type QueryBlockstatsReplyStats = {
  rd_bytes: number;
  wr_bytes: number;
  /** absent in 7.2.22 */ zone_append_bytes?: number;
  unmap_bytes: number;
  rd_operations: number;
  wr_operations: number;
  /** absent in 7.2.22 */ zone_append_operations?: number;
  flush_operations: number;
  unmap_operations: number;
  rd_total_time_ns: number;
  wr_total_time_ns: number;
  /** absent in 7.2.22 */ zone_append_total_time_ns?: number;
  flush_total_time_ns: number;
  unmap_total_time_ns: number;
  wr_highest_offset: number;
  rd_merged: number;
  wr_merged: number;
  /** absent in 7.2.22 */ zone_append_merged?: number;
  unmap_merged: number;
  idle_time_ns?: number;
  failed_rd_operations: number;
  failed_wr_operations: number;
  /** absent in 7.2.22 */ failed_zone_append_operations?: number;
  failed_flush_operations: number;
  failed_unmap_operations: number;
  invalid_rd_operations: number;
  invalid_wr_operations: number;
  /** absent in 7.2.22 */ invalid_zone_append_operations?: number;
  invalid_flush_operations: number;
  invalid_unmap_operations: number;
  account_invalid: boolean;
  account_failed: boolean;
  timed_stats: QueryBlockstatsReplyStatsTimedStats[];
  rd_latency_histogram?: QueryBlockstatsReplyStatsRdLatencyHistogram;
  wr_latency_histogram?: QueryBlockstatsReplyStatsRdLatencyHistogram;
  /** absent in 7.2.22 */ zone_append_latency_histogram?: QueryBlockstatsReplyStatsZoneAppendLatencyHistogram;
  flush_latency_histogram?: QueryBlockstatsReplyStatsRdLatencyHistogram;
};

type QueryBlockstatsReplyStatsTimedStats = {
  interval_length: number;
  min_rd_latency_ns: number;
  max_rd_latency_ns: number;
  avg_rd_latency_ns: number;
  min_wr_latency_ns: number;
  max_wr_latency_ns: number;
  avg_wr_latency_ns: number;
  /** absent in 7.2.22 */ min_zone_append_latency_ns?: number;
  /** absent in 7.2.22 */ max_zone_append_latency_ns?: number;
  /** absent in 7.2.22 */ avg_zone_append_latency_ns?: number;
  min_flush_latency_ns: number;
  max_flush_latency_ns: number;
  avg_flush_latency_ns: number;
  avg_rd_queue_depth: number;
  avg_wr_queue_depth: number;
  /** absent in 7.2.22 */ avg_zone_append_queue_depth?: number;
};

type QueryBlockstatsReplyStatsRdLatencyHistogram = {
  boundaries: number[];
  bins: number[];
};

type QueryBlockstatsReplyStatsZoneAppendLatencyHistogram = {
  boundaries: number[];
  bins: number[];
};

type QueryBlockstatsReplyDriverSpecific = 
  | ({ driver: 'blkdebug' })
  | ({ driver: 'blklogwrites' })
  | ({ driver: 'blkreplay' })
  | ({ driver: 'blkverify' })
  | ({ driver: 'bochs' })
  | ({ driver: 'cloop' })
  | ({ driver: 'compress' })
  | ({ driver: 'copy-before-write' })
  | ({ driver: 'copy-on-read' })
  | ({ driver: 'dmg' })
  | ({ driver: 'file' } & QueryBlockstatsReplyDriverSpecificFile)
  | ({ driver: 'snapshot-access' })
  | ({ driver: 'ftp' })
  | ({ driver: 'ftps' })
  | ({ driver: 'gluster' })
  | ({ driver: 'host_cdrom' })
  | ({ driver: 'host_device' } & QueryBlockstatsReplyDriverSpecificFile)
  | ({ driver: 'http' })
  | ({ driver: 'https' })
  | ({ driver: 'iscsi' })
  | ({ driver: 'luks' })
  | ({ driver: 'nbd' })
  | ({ driver: 'nfs' })
  | ({ driver: 'null-aio' })
  | ({ driver: 'null-co' })
  | ({ driver: 'nvme' } & QueryBlockstatsReplyDriverSpecificNvme)
  | ({ driver: 'parallels' })
  | ({ driver: 'preallocate' })
  | ({ driver: 'qcow' })
  | ({ driver: 'qcow2' })
  | ({ driver: 'qed' })
  | ({ driver: 'quorum' })
  | ({ driver: 'raw' })
  | ({ driver: 'rbd' })
  | ({ driver: 'replication' })
  | ({ driver: 'ssh' })
  | ({ driver: 'throttle' })
  | ({ driver: 'vdi' })
  | ({ driver: 'vhdx' })
  | ({ driver: 'vmdk' })
  | ({ driver: 'vpc' })
  | ({ driver: 'vvfat' });

type QueryBlockstatsReplyDriverSpecificFile = {
  'discard-nb-ok': number;
  'discard-nb-failed': number;
  'discard-bytes-ok': number;
};

type QueryBlockstatsReplyDriverSpecificNvme = {
  'completion-errors': number;
  'aligned-accesses': number;
  'unaligned-accesses': number;
};

type QueryChardevReply = {
  label: string;
  filename: string;
  'frontend-open': boolean;
};

type QueryCommandsReply = {
  name: string;
};

type QueryCpuDefinitionsReply = {
  name: string;
  'migration-safe'?: boolean;
  static: boolean;
  'unavailable-features'?: string[];
  typename: string;
  'alias-of'?: string;
  deprecated: boolean;
};

type QueryCpusFastReply = {
  'cpu-index': number;
  'qom-path': string;
  'thread-id': number;
  props?: QueryCpusFastReplyProps;
} & (
  | ({ target: 'aarch64' })
  | ({ target: 'alpha' })
  | ({ target: 'arm' })
  | ({ target: 'avr' })
  | ({ target: 'hppa' })
  | ({ target: 'i386' })
  | ({ target: 'loongarch64' })
  | ({ target: 'm68k' })
  | ({ target: 'microblaze' })
  | ({ target: 'microblazeel' })
  | ({ target: 'mips' })
  | ({ target: 'mips64' })
  | ({ target: 'mips64el' })
  | ({ target: 'mipsel' })
  | ({ target: 'or1k' })
  | ({ target: 'ppc' })
  | ({ target: 'ppc64' })
  | ({ target: 'riscv32' })
  | ({ target: 'riscv64' })
  | ({ target: 'rx' })
  | ({ target: 's390x' } & QueryCpusFastReplyS390x)
  | ({ target: 'sh4' })
  | ({ target: 'sh4eb' })
  | ({ target: 'sparc' })
  | ({ target: 'sparc64' })
  | ({ target: 'tricore' })
  | ({ target: 'x86_64' })
  | ({ target: 'xtensa' })
  | ({ target: 'xtensaeb' })
  | ({ target: 'cris' })
  | ({ target: 'nios2' })
);

type QueryCpusFastReplyProps = {
  'node-id'?: number;
  /** absent in 7.2.22 */ 'drawer-id'?: number;
  /** absent in 7.2.22 */ 'book-id'?: number;
  'socket-id'?: number;
  'die-id'?: number;
  'cluster-id'?: number;
  /** absent in 7.2.22 */ 'module-id'?: number;
  'core-id'?: number;
  'thread-id'?: number;
};

type QueryCpusFastReplyS390x = {
  'cpu-state': QueryCpusFastReplyS390xCpuState;
  /** absent in 7.2.22 */ dedicated?: boolean;
  /** absent in 7.2.22 */ entitlement?: QueryCpusFastReplyS390xEntitlement;
};

type QueryCpusFastReplyS390xCpuState = 
  | 'uninitialized'
  | 'stopped'
  | 'check-stop'
  | 'operating'
  | 'load';

type QueryCpusFastReplyS390xEntitlement = 
  | 'auto'
  | 'low'
  | 'medium'
  | 'high';

type QueryDirtyRateArgs = {
  /** absent in 7.2.22 */ 'calc-time-unit'?: CalcDirtyRateArgsCalcTimeUnit;
};

type QueryDirtyRateReply = {
  'dirty-rate'?: number;
  status: QueryDirtyRateReplyStatus;
  'start-time': number;
  'calc-time': number;
  /** absent in 7.2.22 */ 'calc-time-unit'?: CalcDirtyRateArgsCalcTimeUnit;
  'sample-pages': number;
  mode: CalcDirtyRateArgsMode;
  'vcpu-dirty-rate'?: QueryDirtyRateReplyVcpuDirtyRate[];
};

type QueryDirtyRateReplyStatus = 
  | 'unstarted'
  | 'measuring'
  | 'measured';

type QueryDirtyRateReplyVcpuDirtyRate = {
  id: number;
  'dirty-rate': number;
};

type QueryJobsReply = {
  id: string;
  type: QueryJobsReplyType;
  status: QueryBlockJobsReplyStatus;
  'current-progress': number;
  'total-progress': number;
  error?: string;
};

type QueryJobsReplyType = 
  | 'commit'
  | 'stream'
  | 'mirror'
  | 'backup'
  | 'create'
  | 'amend'
  | 'snapshot-load'
  | 'snapshot-save'
  | 'snapshot-delete';

type QueryKvmReply = {
  enabled: boolean;
  present: boolean;
};

type QueryMachinesArgs = {
  /** absent in 7.2.22 */ 'compat-props'?: boolean;
};

type QueryMachinesReply = {
  name: string;
  alias?: string;
  'is-default'?: boolean;
  'cpu-max': number;
  'hotpluggable-cpus': boolean;
  'numa-mem-supported': boolean;
  deprecated: boolean;
  'default-cpu-type'?: string;
  'default-ram-id'?: string;
  /** absent in 7.2.22 */ acpi?: boolean;
  /** absent in 7.2.22 */ 'compat-props'?: QueryMachinesReplyCompatProps[];
};

type QueryMachinesReplyCompatProps = {
  'qom-type': string;
  property: string;
  value: string;
};

type QueryMigrateReply = {
  status?: MigrateContinueArgsState;
  ram?: QueryMigrateReplyRam;
  vfio?: QueryMigrateReplyVfio;
  'xbzrle-cache'?: QueryMigrateReplyXbzrleCache;
  'total-time'?: number;
  'expected-downtime'?: number;
  downtime?: number;
  'setup-time'?: number;
  'cpu-throttle-percentage'?: number;
  'error-desc'?: string;
  'blocked-reasons'?: string[];
  'postcopy-blocktime'?: number;
  'postcopy-vcpu-blocktime'?: number[];
  'socket-address'?: BlockExportAddArgsVhostUserBlkAddr[];
  /** absent in 7.2.22 */ 'dirty-limit-throttle-time-per-round'?: number;
  /** absent in 7.2.22 */ 'dirty-limit-ring-full-time'?: number;
  /** absent in 10.0.2 */ disk?: QueryMigrateReplyDisk;
  /** absent in 10.0.2 */ compression?: QueryMigrateReplyCompression;
};

type QueryMigrateReplyRam = {
  transferred: number;
  remaining: number;
  total: number;
  duplicate: number;
  normal: number;
  'normal-bytes': number;
  'dirty-pages-rate': number;
  mbps: number;
  'dirty-sync-count': number;
  'postcopy-requests': number;
  'page-size': number;
  'multifd-bytes': number;
  'pages-per-second': number;
  'precopy-bytes': number;
  'downtime-bytes': number;
  'postcopy-bytes': number;
  'dirty-sync-missed-zero-copy': number;
  /** absent in 10.0.2 */ skipped?: number;
};

type QueryMigrateReplyVfio = {
  transferred: number;
};

type QueryMigrateReplyXbzrleCache = {
  'cache-size': number;
  bytes: number;
  pages: number;
  'cache-miss': number;
  'cache-miss-rate': number;
  'encoding-rate': number;
  overflow: number;
};

type QueryMigrateReplyDisk = {
  transferred: number;
  remaining: number;
  total: number;
  duplicate: number;
  skipped: number;
  normal: number;
  'normal-bytes': number;
  'dirty-pages-rate': number;
  mbps: number;
  'dirty-sync-count': number;
  'postcopy-requests': number;
  'page-size': number;
  'multifd-bytes': number;
  'pages-per-second': number;
  'precopy-bytes': number;
  'downtime-bytes': number;
  'postcopy-bytes': number;
  'dirty-sync-missed-zero-copy': number;
};

type QueryMigrateReplyCompression = {
  pages: number;
  busy: number;
  'busy-rate': number;
  'compressed-size': number;
  'compression-rate': number;
};

type QueryMigrateParametersReply = {
  'announce-initial'?: number;
  'announce-max'?: number;
  'announce-rounds'?: number;
  'announce-step'?: number;
  'throttle-trigger-threshold'?: number;
  'cpu-throttle-initial'?: number;
  'cpu-throttle-increment'?: number;
  'cpu-throttle-tailslow'?: boolean;
  'tls-creds'?: string;
  'tls-hostname'?: string;
  'tls-authz'?: string;
  'max-bandwidth'?: number;
  /** absent in 7.2.22 */ 'avail-switchover-bandwidth'?: number;
  'downtime-limit'?: number;
  'x-checkpoint-delay'?: number;
  'multifd-channels'?: number;
  'xbzrle-cache-size'?: number;
  'max-postcopy-bandwidth'?: number;
  'max-cpu-throttle'?: number;
  'multifd-compression'?: MigrateSetParametersArgsMultifdCompression;
  'multifd-zlib-level'?: number;
  /** absent in 7.2.22 */ 'multifd-qatzip-level'?: number;
  'multifd-zstd-level'?: number;
  'block-bitmap-mapping'?: MigrateSetParametersArgsBlockBitmapMapping[];
  /** absent in 7.2.22 */ 'x-vcpu-dirty-limit-period'?: number;
  /** absent in 7.2.22 */ 'vcpu-dirty-limit'?: number;
  /** absent in 7.2.22 */ mode?: MigrateSetParametersArgsMode;
  /** absent in 7.2.22 */ 'zero-page-detection'?: MigrateSetParametersArgsZeroPageDetection;
  /** absent in 7.2.22 */ 'direct-io'?: boolean;
  /** absent in 10.0.2 */ 'compress-level'?: number;
  /** absent in 10.0.2 */ 'compress-threads'?: number;
  /** absent in 10.0.2 */ 'compress-wait-thread'?: boolean;
  /** absent in 10.0.2 */ 'decompress-threads'?: number;
  /** absent in 10.0.2 */ 'block-incremental'?: boolean;
};

type QueryNameReply = {
  name?: string;
};

type QueryNamedBlockNodesArgs = {
  flat?: boolean;
};

type QueryPciReply = {
  bus: number;
  devices: QueryPciReplyDevices[];
};

type QueryPciReplyDevices = {
  bus: number;
  slot: number;
  function: number;
  class_info: QueryPciReplyDevicesClassInfo;
  id: QueryPciReplyDevicesId;
  irq?: number;
  irq_pin: number;
  qdev_id: string;
  pci_bridge?: QueryPciReplyDevicesPciBridge;
  regions: QueryPciReplyDevicesRegions[];
};

type QueryPciReplyDevicesClassInfo = {
  desc?: string;
  class: number;
};

type QueryPciReplyDevicesId = {
  device: number;
  vendor: number;
  subsystem?: number;
  'subsystem-vendor'?: number;
};

type QueryPciReplyDevicesPciBridge = {
  bus: QueryPciReplyDevicesPciBridgeBus;
  devices?: QueryPciReplyDevices[];
};

type QueryPciReplyDevicesPciBridgeBus = {
  number: number;
  secondary: number;
  subordinate: number;
  io_range: QueryPciReplyDevicesPciBridgeBusIoRange;
  memory_range: QueryPciReplyDevicesPciBridgeBusIoRange;
  prefetchable_range: QueryPciReplyDevicesPciBridgeBusIoRange;
};

type QueryPciReplyDevicesPciBridgeBusIoRange = {
  base: number;
  limit: number;
};

type QueryPciReplyDevicesRegions = {
  bar: number;
  type: string;
  address: number;
  size: number;
  prefetch?: boolean;
  mem_type_64?: boolean;
};

type QueryStatusReply = {
  running: boolean;
  status: QueryStatusReplyStatus;
  /** absent in 10.0.2 */ singlestep?: boolean;
};

type QueryStatusReplyStatus = 
  | 'debug'
  | 'inmigrate'
  | 'internal-error'
  | 'io-error'
  | 'paused'
  | 'postmigrate'
  | 'prelaunch'
  | 'finish-migrate'
  | 'restore-vm'
  | 'running'
  | 'save-vm'
  | 'shutdown'
  | 'suspended'
  | 'watchdog'
  | 'guest-panicked'
  | 'colo';

type QueryUuidReply = {
  UUID: string;
};

type QueryVersionReply = {
  qemu: QueryVersionReplyQemu;
  package: string;
};

type QueryVersionReplyQemu = {
  major: number;
  minor: number;
  micro: number;
};

type QueryYankReply = 
  | ({ type: 'block-node' } & QueryYankReplyBlockNode)
  | ({ type: 'chardev' } & QueryYankReplyChardev)
  | ({ type: 'migration' });

type QueryYankReplyBlockNode = {
  'node-name': string;
};

type QueryYankReplyChardev = {
  id: string;
};

type SetLinkArgs = {
  name: string;
  up: boolean;
};

type YankArgs = {
  instances: QueryYankReply[];
};

type BalloonChangeData = {
  actual: number;
};

type BlockExportDeletedData = {
  id: string;
};

type BlockIoErrorData = {
  /** absent in 7.2.22 */ 'qom-path'?: string;
  device: string;
  'node-name'?: string;
  operation: BlockIoErrorDataOperation;
  action: BlockIoErrorDataAction;
  nospace?: boolean;
  reason: string;
};

type BlockIoErrorDataOperation = 
  | 'read'
  | 'write';

type BlockIoErrorDataAction = 
  | 'ignore'
  | 'report'
  | 'stop';

type BlockJobCancelledData = {
  type: QueryJobsReplyType;
  device: string;
  len: number;
  offset: number;
  speed: number;
};

type BlockJobCompletedData = {
  type: QueryJobsReplyType;
  device: string;
  len: number;
  offset: number;
  speed: number;
  error?: string;
};

type BlockJobErrorData = {
  device: string;
  operation: BlockIoErrorDataOperation;
  action: BlockIoErrorDataAction;
};

type BlockJobPendingData = {
  type: QueryJobsReplyType;
  id: string;
};

type BlockJobReadyData = {
  type: QueryJobsReplyType;
  device: string;
  len: number;
  offset: number;
  speed: number;
};

type DeviceDeletedData = {
  device?: string;
  path: string;
};

type DeviceUnplugGuestErrorData = {
  device?: string;
  path: string;
};

type GuestCrashloadedData = {
  action: GuestCrashloadedDataAction;
  info?: GuestCrashloadedDataInfo;
};

type GuestCrashloadedDataAction = 
  | 'pause'
  | 'poweroff'
  | 'run';

type GuestCrashloadedDataInfo = 
  | ({ type: 'hyper-v' } & GuestCrashloadedDataInfoHyperV)
  | ({ type: 's390' } & GuestCrashloadedDataInfoS390);

type GuestCrashloadedDataInfoHyperV = {
  arg1: number;
  arg2: number;
  arg3: number;
  arg4: number;
  arg5: number;
};

type GuestCrashloadedDataInfoS390 = {
  core: number;
  'psw-mask': number;
  'psw-addr': number;
  reason: GuestCrashloadedDataInfoS390Reason;
};

type GuestCrashloadedDataInfoS390Reason = 
  | 'unknown'
  | 'disabled-wait'
  | 'extint-loop'
  | 'pgmint-loop'
  | 'opint-loop';

type GuestPanickedData = {
  action: GuestCrashloadedDataAction;
  info?: GuestCrashloadedDataInfo;
};

type JobStatusChangeData = {
  id: string;
  status: QueryBlockJobsReplyStatus;
};

type MemoryFailureData = {
  recipient: MemoryFailureDataRecipient;
  action: MemoryFailureDataAction;
  flags: MemoryFailureDataFlags;
};

type MemoryFailureDataRecipient = 
  | 'hypervisor'
  | 'guest';

type MemoryFailureDataAction = 
  | 'ignore'
  | 'inject'
  | 'fatal'
  | 'reset';

type MemoryFailureDataFlags = {
  'action-required': boolean;
  recursive: boolean;
};

type MigrationData = {
  status: MigrateContinueArgsState;
};

type MigrationPassData = {
  pass: number;
};

type NicRxFilterChangedData = {
  name?: string;
  path: string;
};

type ResetData = {
  guest: boolean;
  reason: ResetDataReason;
};

type ResetDataReason = 
  | 'none'
  | 'host-error'
  | 'host-qmp-quit'
  | 'host-qmp-system-reset'
  | 'host-signal'
  | 'host-ui'
  | 'guest-shutdown'
  | 'guest-reset'
  | 'guest-panic'
  | 'subsystem-reset'
  | 'snapshot-load';

type ShutdownData = {
  guest: boolean;
  reason: ResetDataReason;
};

type UnplugPrimaryData = {
  'device-id': string;
};

type WatchdogData = {
  action: WatchdogDataAction;
};

type WatchdogDataAction = 
  | 'reset'
  | 'shutdown'
  | 'poweroff'
  | 'pause'
  | 'debug'
  | 'none'
  | 'inject-nmi';
