/** The form in front of everything. What signing in means is in session.ts. */
import { useId, useState, type FormEvent } from 'react';
import { UserError, messageOf } from '../../model/failure.ts';
import { signIn, type Credentials } from '../session.ts';

export function SignIn({ because }: { because: string | null }) {
  const [kind, setKind] = useState<Credentials['kind']>('password');
  const [name, setName] = useState('');
  const [secret, setSecret] = useState('');
  const [keep, setKeep] = useState(false);
  const [busy, setBusy] = useState(false);
  const [refusal, setRefusal] = useState(because);
  const id = useId();
  const isByToken = kind === 'token';

  const submit = (event: FormEvent): void => {
    event.preventDefault();
    setBusy(true);
    signIn(isByToken ? { kind, token: secret, keep } : { kind: 'password', name: name.trim(), password: secret })
      .catch((error: unknown) => {
        const isRefused = error instanceof UserError && error.code === 'unauthorized';
        setRefusal(isRefused && isByToken ? 'The server does not know this token.' : messageOf(error));
      })
      .finally(() => setBusy(false));
  };

  return (
    <main className="sign-in">
      <form onSubmit={submit} className="card">
        <div className="brand">
          <img src="/icon.svg" alt="" width="32" height="32" />
          <h1>Drover</h1>
        </div>
        {!isByToken && (
          <>
            <label htmlFor={`${id}-name`}>Name</label>
            <input
              id={`${id}-name`}
              autoComplete="username"
              autoFocus
              required
              value={name}
              onChange={(event) => setName(event.target.value)}
            />
          </>
        )}
        <label htmlFor={id}>{isByToken ? 'Token' : 'Password'}</label>
        <input
          id={id}
          key={kind}
          type="password"
          autoComplete={isByToken ? 'off' : 'current-password'}
          autoFocus={isByToken}
          required
          value={secret}
          aria-invalid={refusal !== null}
          onChange={(event) => setSecret(event.target.value)}
        />
        {isByToken && (
          <>
            <p className="muted">
              One that an admin has made, or the server's own: the file <code>token</code> of its state directory.
            </p>
            <label className="check">
              <input type="checkbox" checked={keep} onChange={(event) => setKeep(event.target.checked)} />
              Keep me signed in in this browser
            </label>
          </>
        )}
        {refusal !== null && (
          <p className="refusal" role="alert">
            {refusal}
          </p>
        )}
        <button type="submit" className="primary" disabled={busy}>
          {busy ? 'Signing in' : 'Sign in'}
        </button>
        <button
          type="button"
          className="plain"
          onClick={() => {
            setKind(isByToken ? 'password' : 'token');
            setSecret('');
            setRefusal(null);
          }}
        >
          {isByToken ? 'Use name and password' : 'Use a token'}
        </button>
      </form>
    </main>
  );
}
