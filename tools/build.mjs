// npm run build: the dashboard, where something it is made of has changed. `npm run build -- --force` builds it in any case.

import { buildPage, missingPage } from './setup/page.mjs';
import { missingPackages } from './setup/packages.mjs';
import { showError } from './setup.mjs';

try {
  if (missingPackages()) console.log('The npm packages are not as package-lock.json says: `npm run setup` mends that.');
  if (process.argv.includes('--force') || missingPage()) {
    const startedAt = performance.now();
    await buildPage();
    console.log(
      `The dashboard is built into .drover/web, in ${((performance.now() - startedAt) / 1000).toFixed(1)} s.`,
    );
  } else console.log('The dashboard in .drover/web is up to date.');
} catch (error) {
  showError(error);
  process.exitCode = 1;
}
