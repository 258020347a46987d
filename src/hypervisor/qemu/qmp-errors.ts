/** What can go wrong between us and a QEMU's monitor, as errors that say which command, which socket and what it means. */

export type QmpCloseReason =
  | { kind: 'closed-here' }
  /** QEMU ended, was killed, or shut the connection. */
  | { kind: 'qemu-gone'; cause?: Error }
  /** QEMU, or whatever listens there, sent what is no QMP. */
  | { kind: 'protocol-error'; detail: string };

/** What all of these share: the socket. */
export class QmpError extends Error {
  readonly path: string;

  constructor(path: string, message: string, options?: ErrorOptions) {
    super(message, options);
    this.path = path;
  }
}

/** QEMU understood the command and refused it. */
export class QmpCommandError extends QmpError {
  override readonly name = 'QmpCommandError';
  readonly command: string;
  /** QEMU's error class: GenericError, CommandNotFound, DeviceNotFound, DeviceNotActive, KVMMissingCap. */
  readonly class: string;
  /** QEMU's sentence, for people; changes between versions. */
  readonly desc: string;

  constructor(path: string, command: string, error: { class: string; desc: string }) {
    super(path, `QEMU at ${path} refused ${command}: ${error.desc} (${error.class})`);
    this.command = command;
    this.class = error.class;
    this.desc = error.desc;
  }
}

/** No answer in time. */
export class QmpTimeout extends QmpError {
  override readonly name = 'QmpTimeout';
  /** The command, or the stage of connecting: 'connect', 'greeting'. */
  readonly command: string;
  readonly timeoutMs: number;
  /** Whether QEMU may have the command, and so may still carry it out. */
  readonly sent: boolean;

  constructor(path: string, command: string, timeoutMs: number, sent: boolean, hint: string) {
    super(path, `no answer to ${command} from QEMU at ${path} within ${timeoutMs} ms: ${hint}`);
    this.command = command;
    this.timeoutMs = timeoutMs;
    this.sent = sent;
  }
}

/** The connection could not be made, or ended before the answer came. The command may have been carried out. */
export class QmpDisconnected extends QmpError {
  override readonly name = 'QmpDisconnected';
  readonly command: string;
  readonly reason: QmpCloseReason;

  constructor(path: string, command: string, reason: QmpCloseReason, hint?: string) {
    const cause = reason.kind === 'qemu-gone' ? reason.cause : undefined;
    super(
      path,
      `no connection to QEMU at ${path} for ${command}: ${hint ?? describe(reason)}`,
      cause === undefined ? undefined : { cause },
    );
    this.command = command;
    this.reason = reason;
  }
}

/** The command was not sent: it cannot have had any effect. */
export class QmpNotSent extends QmpError {
  override readonly name = 'QmpNotSent';
  readonly command: string;
  readonly why: 'no-out-of-band' | 'too-many-waiting';

  constructor(path: string, command: string, why: 'no-out-of-band' | 'too-many-waiting') {
    super(
      path,
      why === 'no-out-of-band'
        ? `${command} was not sent to QEMU at ${path}: this QEMU takes no out-of-band commands`
        : `${command} was not sent to QEMU at ${path}: too many commands wait for an answer`,
    );
    this.command = command;
    this.why = why;
  }
}

function describe(reason: QmpCloseReason): string {
  switch (reason.kind) {
    case 'closed-here':
      return 'closed by us';
    case 'qemu-gone':
      return reason.cause === undefined ? 'QEMU closed it or died' : `QEMU is gone (${reason.cause.message})`;
    case 'protocol-error':
      return `closed because of a protocol error: ${reason.detail}`;
  }
}
