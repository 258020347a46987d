/** How the dashboard is built: everything in a few files, nothing fetched from elsewhere. `npm run build` says where to. */
import { defineConfig } from 'vite';

export default defineConfig({
  root: import.meta.dirname,
  resolve: { alias: { zod: `${import.meta.dirname}/believed.ts` } },
  build: { target: 'es2022', assetsInlineLimit: 0, emptyOutDir: true, sourcemap: false, reportCompressedSize: false },
  clearScreen: false,
});
