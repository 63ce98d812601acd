"""The composition root: builds each part once and wires them; nothing else."""
