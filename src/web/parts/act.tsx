/** What the signed-in may do: buttons are there only for those whom the server would not refuse, by the same table that it asks. */
import type { ComponentProps } from 'react';
import { roleSuffices } from '../../model/access.ts';
import { endpoints, type EndpointName } from '../../wire/endpoints.ts';
import { useLive } from '../live.ts';

export function useMay(operation: EndpointName): boolean {
  const role = useLive(({ me }) => me?.role);
  const needed = endpoints[operation].role;
  return needed === 'none' || (role !== undefined && roleSuffices(role, needed));
}

/** A button that leads to this operation, perhaps by way of a dialog. */
export function Act({ does, ...button }: { does: EndpointName } & ComponentProps<'button'>) {
  return useMay(does) ? <button {...button} type="button" /> : null;
}
