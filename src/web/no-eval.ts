/** Imported before everything else: the page's policy forbids code made of text, which zod would try for the sake of speed. */
import { z } from 'zod';

z.config({ jitless: true });
