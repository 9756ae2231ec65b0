"""Train what a stage names and nothing else: objective, adapters, loop, checkpoints, chat format."""
