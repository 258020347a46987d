/** The few drawings the dashboard needs, all on one grid of 16. They say nothing to a screen reader: words stand beside them. */

const drawings = {
  fleet: 'M2 3.5h12v3H2zM2 9.5h12v3H2zM4.5 5h.01M4.5 11h.01',
  vms: 'M2.5 2.5h5v5h-5zM8.5 8.5h5v5h-5zM10 3.5h3M11.5 2v3M3 11h3',
  migrations: 'M2 5.5h10m-2.5-2.5L12 5.5 9.5 8M14 10.5H4m2.5-2.5L4 10.5 6.5 13',
  plans: 'M3 4h1M6 4h7M3 8h1M6 8h7M3 12h1M6 12h7',
  drains: 'M2 3h5M2 8h9M2 13h4M9 3h5M13 8h1M8 13h6',
  energy: 'M9 1.5 3.5 9H8l-1 5.5L12.5 7H8z',
  failures: 'M8 2 14.5 13.5h-13zM8 6.5v3M8 11.5h.01',
  audit: 'M4 1.5h6L13 5v9.5H4zM6.5 8h4M6.5 11h4',
  ok: 'M3 8.5 6.5 12 13 4.5',
  warn: 'M8 2 14.5 13.5h-13zM8 6.5v3M8 11.5h.01',
  bad: 'M4 4l8 8M12 4l-8 8',
  run: 'M2 8h9m-3.5-3.5L11 8l-3.5 3.5M14 4v8',
  wait: 'M8 2a6 6 0 1 0 .01 0M8 4.5V8l2.5 1.5',
  moon: 'M13 9.5A5.5 5.5 0 1 1 6.5 3 4.5 4.5 0 0 0 13 9.5z',
  lock: 'M4 7.5h8v6H4zM5.5 7.5V5a2.5 2.5 0 0 1 5 0v2.5',
  off: 'M8 2v5M4.5 4a5.5 5.5 0 1 0 7 0',
} as const;
export type IconName = keyof typeof drawings;

export function Icon({ name }: { name: IconName }) {
  return (
    <svg className="icon" viewBox="0 0 16 16" width="16" height="16" aria-hidden="true" focusable="false">
      <path d={drawings[name]} />
    </svg>
  );
}
