"""Shows the progress of a run of 40 steps."""

from bitnet_jax.logs.progress_bar import ProgressBar

progress = ProgressBar(step=10, total_steps=40, steps_per_epoch=20)
progress.advance(20)
values = {'loss': 1.25, 'error': 0.5}
progress.interval(20, values)
progress.interval(20, {**values, 'images_per_second': 1234.0, 'seconds_per_step': 60.0})
progress.evaluated(20, {'loss': 1.0, 'error': 0.25, 'correct': 75, 'count': 100})
progress.close()
