/** The own password, changed with the old one. */
import { useId, useState } from 'react';
import { messageOf } from '../../model/failure.ts';
import { live } from '../live.ts';
import { Dialog } from './dialog.tsx';
import { tell } from './notices.tsx';

export function PasswordDialog({ name, onClose }: { name: string; onClose: () => void }) {
  const [old, setOld] = useState('');
  const [wanted, setWanted] = useState('');
  const [again, setAgain] = useState('');
  const [busy, setBusy] = useState(false);
  const [refusal, setRefusal] = useState<string>();
  const form = useId();

  const change = (): void => {
    if (wanted !== again) return setRefusal('The two new ones are not the same.');
    setBusy(true);
    live()
      .client.changeMyPassword({ body: { oldPassword: old, newPassword: wanted } })
      .then(() => {
        tell('The password is changed. Where else you were signed in you are no more.');
        onClose();
      })
      .catch((error: unknown) => {
        setRefusal(messageOf(error));
        setBusy(false);
      });
  };

  return (
    <Dialog
      title={`Password of ${name}`}
      onClose={onClose}
      actions={
        <>
          <button type="button" onClick={onClose}>
            Leave it
          </button>
          <button type="submit" form={form} className="primary" disabled={busy}>
            Change it
          </button>
        </>
      }
    >
      <form
        id={form}
        className="stacked"
        onSubmit={(event) => {
          event.preventDefault();
          change();
        }}
      >
        <Secret word="Old password" kind="current-password" value={old} onChange={setOld} />
        <Secret word="New password" kind="new-password" value={wanted} onChange={setWanted} />
        <Secret word="New password again" kind="new-password" value={again} onChange={setAgain} />
        {refusal !== undefined && (
          <p className="refusal" role="alert">
            {refusal}
          </p>
        )}
      </form>
    </Dialog>
  );
}

function Secret(props: { word: string; kind: string; value: string; onChange: (value: string) => void }) {
  const { word, kind, value, onChange } = props;
  return (
    <label className="field">
      {word}
      <input
        type="password"
        autoComplete={kind}
        required
        minLength={kind === 'new-password' ? 10 : undefined}
        maxLength={200}
        value={value}
        onChange={(event) => onChange(event.target.value)}
      />
    </label>
  );
}
