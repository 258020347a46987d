/** The load of one host or VM over time: the last hour from the server, and since the page was opened as it is told. */
import { useEffect } from 'react';
import { live, upTo, useLive, type LoadHistory } from '../live.ts';
import { useNow } from './page.tsx';

/** @param id of the host or VM; empty: there is none */
export function useLoad(kind: 'host' | 'vm', id: string): LoadHistory {
  useEffect(() => {
    if (id === '') return;
    const over = new AbortController();
    live()
      .readLoads(kind === 'host' ? { host: id } : { vm: id }, over.signal)
      .catch(() => {}); // a server that is away, or older than that question: then it is as told from now on
    return () => over.abort();
  }, [kind, id]);
  return upTo(
    useNow(2000),
    useLive((store) => store.loadOf(id)),
  );
}
