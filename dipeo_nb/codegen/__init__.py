"""Code generation: TypeScript in, templates and their filters, and what stands between them (imported on first use)."""
