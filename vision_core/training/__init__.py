"""The training loop and its parts: learner, loaders, optimizers, schedules, teachers, checkpoints, processes."""
