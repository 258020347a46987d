/** Lines over time, by uPlot: React makes the chart once, the numbers go to uPlot directly. */
import { useEffect, useRef, useState } from 'react';
import uPlot from 'uplot';
import { timeOfDay } from '../words.ts';
import 'uplot/dist/uPlot.min.css';

const spanSteps = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600];
const clockSteps = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200];

export interface Line {
  readonly word: string;
  /** Name of the colour among the page's own, e.g. --accent. */
  readonly colour: string;
  readonly values: readonly (number | null)[];
  /** Told apart without colour too. */
  readonly dashed?: boolean;
}

export interface LineChartProps {
  /** What it shows, for who cannot see it. */
  readonly says: string;
  /** Ms since the epoch, or ms since the begin with `relative`. */
  readonly at: readonly number[];
  readonly lines: readonly Line[];
  readonly format: (value: number) => string;
  readonly relative?: boolean;
  readonly max?: number;
  readonly height?: number;
  readonly stepped?: boolean;
}

export function LineChart(props: LineChartProps) {
  const { says, at, lines, format, relative = false, max, height = 200, stepped = false } = props;
  const place = useRef<HTMLDivElement>(null);
  const chart = useRef<uPlot>(undefined);
  const theme = useTheme();
  const shape = lines.map(({ word, colour, dashed }) => `${word} ${colour} ${dashed}`).join();

  useEffect(() => {
    const element = place.current;
    if (!element) return;
    const colour = (name: string): string => getComputedStyle(element).getPropertyValue(name).trim();
    const font = '11px Inter, system-ui, sans-serif';
    const axis = {
      stroke: colour('--muted'),
      grid: { stroke: colour('--line'), width: 1 },
      ticks: { show: false },
      font,
    };
    const paths = stepped && uPlot.paths.stepped ? uPlot.paths.stepped({ align: -1 }) : undefined;
    chart.current = new uPlot(
      {
        width: Math.max(100, element.clientWidth),
        height,
        padding: [6, 6, 0, 0],
        cursor: { points: { size: 6 }, y: false },
        legend: { live: true },
        scales: {
          x: { time: !relative },
          y: { range: (_, __, high) => [0, max ?? Math.max(high * 1.15, 1e-9)] },
        },
        axes: [
          {
            ...axis,
            size: 28,
            space: 84,
            incrs: relative ? spanSteps : clockSteps,
            values: (_, ticks) => ticks.map((tick) => (relative ? `${+tick.toFixed(1)} s` : timeOfDay(tick * 1000))),
          },
          { ...axis, size: 78, values: (_, ticks) => ticks.map(format) },
        ],
        series: [
          relative
            ? { label: 'after', value: (_, value) => (value === null ? '–' : `${value?.toFixed(2)} s`) }
            : { label: 'at', value: (_, value) => (value === null ? '–' : timeOfDay(value * 1000)) },
          ...lines.map(({ word, colour: name, dashed }) => ({
            label: word,
            stroke: colour(name),
            width: 1.75,
            points: { show: false },
            ...(dashed ? { dash: [5, 4] } : {}),
            ...(paths ? { paths } : {}),
            value: (_: uPlot, value: number | null) => (value === null ? '–' : format(value)),
          })),
        ],
      },
      [[]],
      element,
    );
    const resized = new ResizeObserver(() => {
      chart.current?.setSize({ width: Math.max(100, element.clientWidth), height });
    });
    resized.observe(element);
    return () => {
      resized.disconnect();
      chart.current?.destroy();
      chart.current = undefined;
    };
    // The functions are the same for one page; what they are made of is in `shape`.
  }, [shape, theme, height, relative, max, stepped]); // oxlint-disable-line react-hooks/exhaustive-deps -- see above

  useEffect(() => {
    chart.current?.setData([at.map((each) => each / 1000), ...lines.map(({ values }) => [...values])]);
  });

  return <div ref={place} className="line-chart" role="img" aria-label={says} />;
}

/** Changes when the colours do. */
function useTheme(): string {
  const [theme, setTheme] = useState('');
  useEffect(() => {
    const dark = matchMedia('(prefers-color-scheme: dark)');
    const look = (): void => setTheme(`${document.documentElement.dataset['theme']} ${dark.matches}`);
    look();
    const watcher = new MutationObserver(look);
    watcher.observe(document.documentElement, { attributeFilter: ['data-theme'] });
    dark.addEventListener('change', look);
    return () => {
      watcher.disconnect();
      dark.removeEventListener('change', look);
    };
  }, []);
  return theme;
}
