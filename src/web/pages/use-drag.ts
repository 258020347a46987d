/** Dragging a guest's chip with the mouse or a pen onto another lane. A finger scrolls; it moves guests from their own page. */
import { useEffect, useState, type RefObject } from 'react';
import type { VmView } from '../../wire/endpoints.ts';
import { live } from '../live.ts';

export interface Drag {
  readonly vm: VmView;
  /** In the window. */
  readonly x: number;
  readonly y: number;
  /** Name of the host under the pointer. */
  readonly over: string | undefined;
}

/** Less is a click. */
const slop = 5;
const edge = 60;

/** @param onDrop called when a guest was let go over another host than its own */
export function useDrag(
  ref: RefObject<HTMLElement | null>,
  allowed: boolean,
  onDrop: (vm: VmView, host: string) => void,
): Drag | undefined {
  const [drag, setDrag] = useState<Drag>();
  useEffect(() => {
    const element = ref.current;
    if (!element || !allowed) return;
    let began: { vm: VmView; x: number; y: number } | undefined;
    let current: Drag | undefined;
    const set = (next: Drag | undefined): void => {
      current = next;
      setDrag(next);
    };
    const onDown = (event: PointerEvent): void => {
      const id = chipUnder(event.target)?.dataset['vm'];
      const vm = id === undefined ? undefined : live().vms.get(id);
      if (event.pointerType === 'touch' || event.button !== 0 || vm?.state !== 'running' || vm.migration !== null)
        return;
      began = { vm, x: event.clientX, y: event.clientY };
    };
    const onMove = (event: PointerEvent): void => {
      if (!began) return;
      const { clientX: x, clientY: y } = event;
      if (!current && Math.hypot(x - began.x, y - began.y) < slop) return;
      event.preventDefault();
      if (y < edge) window.scrollBy(0, -12);
      else if (y > window.innerHeight - edge) window.scrollBy(0, 12);
      set({ vm: began.vm, x, y, over: hostUnder(x, y) });
    };
    const onUp = (event: PointerEvent): void => {
      const dropped = current;
      began = undefined;
      if (!dropped) return;
      set(undefined);
      // The click that the browser makes of it is not meant.
      window.addEventListener('click', swallow, { capture: true, once: true });
      setTimeout(() => window.removeEventListener('click', swallow, { capture: true }));
      const host = hostUnder(event.clientX, event.clientY);
      if (host !== undefined && host !== dropped.vm.host) onDrop(dropped.vm, host);
    };
    const onCancel = (): void => {
      began = undefined;
      set(undefined);
    };
    const onKey = (event: KeyboardEvent): void => {
      if (event.key === 'Escape' && current) onCancel();
    };
    element.addEventListener('pointerdown', onDown);
    window.addEventListener('pointermove', onMove);
    window.addEventListener('pointerup', onUp);
    window.addEventListener('pointercancel', onCancel);
    window.addEventListener('keydown', onKey);
    return () => {
      element.removeEventListener('pointerdown', onDown);
      window.removeEventListener('pointermove', onMove);
      window.removeEventListener('pointerup', onUp);
      window.removeEventListener('pointercancel', onCancel);
      window.removeEventListener('keydown', onKey);
    };
  }, [ref, allowed, onDrop]);
  return drag;
}

function chipUnder(target: EventTarget | null): HTMLElement | null {
  return target instanceof Element ? target.closest<HTMLElement>('[data-vm]') : null;
}

function hostUnder(x: number, y: number): string | undefined {
  return document.elementFromPoint(x, y)?.closest<HTMLElement>('[data-host]')?.dataset['host'];
}

function swallow(event: Event): void {
  event.stopPropagation();
  event.preventDefault();
}
