"""What a run tells while it goes: a status document, an OpenMetrics file, JSON lines, TensorBoard or wandb."""
