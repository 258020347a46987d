/** Which part of a long element is in view, so that only that is drawn. The page scrolls, not the element. */
import { useLayoutEffect, useState, type RefObject } from 'react';

export interface Visible {
  /** In px from the element's top. */
  readonly from: number;
  readonly to: number;
  readonly width: number;
}

/** Drawn before it is scrolled into view; and so far is scrolled before it is drawn anew. */
const ahead = 600;
const step = 200;

export function useVisible(ref: RefObject<HTMLElement | null>): Visible {
  const [visible, setVisible] = useState<Visible>({ from: 0, to: 2000, width: 0 });
  useLayoutEffect(() => {
    const element = ref.current;
    if (!element) return;
    const look = (): void => {
      const { top, width } = element.getBoundingClientRect();
      const from = Math.floor((-top - ahead) / step) * step;
      const to = Math.ceil((-top + window.innerHeight + ahead) / step) * step;
      setVisible((before) =>
        before.from === from && before.to === to && before.width === width ? before : { from, to, width },
      );
    };
    look();
    const resized = new ResizeObserver(look);
    resized.observe(element);
    resized.observe(document.body);
    window.addEventListener('scroll', look, { passive: true });
    return () => {
      resized.disconnect();
      window.removeEventListener('scroll', look);
    };
  }, [ref]);
  return visible;
}
