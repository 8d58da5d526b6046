"""Trains or applies a network in PyTorch when a benchmark tells this process to.

`python torch_worker.py` runs with any Python that has PyTorch and needs no other package of this
project. Requests come as lines of JSON on stdin, answers leave on stdout.
"""

from __future__ import annotations

import functools
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import torch_networks  # Lies beside this file.


class Worker:
  """Holds a network, its optimizer and a batch.

  Args:
    request: 'spec' of the network; 'arrays', a file of weights by PyTorch's names, of 'images'
      (NHWC) and of 'labels'; 'dtype'; 'device'; 'compile', a mode of torch.compile or '';
      'optimizer', the arguments of SGD.
  """

  def __init__(self, request: dict[str, Any]) -> None:
    self.request, self.device = request, request['device']
    arrays = dict(np.load(request['arrays']))
    images = torch.from_numpy(arrays.pop('images').transpose(0, 3, 1, 2))
    self.images = images.to(self.device, memory_format=torch.channels_last)
    self.labels = torch.from_numpy(arrays.pop('labels')).long().to(self.device)
    network = torch_networks.TorchNetwork(request['spec'])
    network.load_state_dict({k: torch.from_numpy(v) for k, v in arrays.items()}, strict=False)
    self.network = network.to(self.device, memory_format=torch.channels_last)
    self.optimizer = torch.optim.SGD(network.parameters(), **request['optimizer'])
    self.runs = self.network
    if request['compile']:
      self.runs = torch.compile(self.network, mode=request['compile'])

  def _logits(self) -> torch.Tensor:
    enabled = self.request['dtype'] == 'bfloat16'
    with torch.autocast(self.device, torch.bfloat16, enabled=enabled):
      return self.runs(self.images)

  def _synchronize(self) -> None:
    if self.device == 'cuda':
      torch.cuda.synchronize()

  def check(self) -> dict[str, Any]:
    """Returns logits and loss of a training step, and the norm of each gradient."""
    logits = self._logits()
    loss = F.cross_entropy(logits.float(), self.labels)
    self.optimizer.zero_grad()
    loss.backward()
    return {
      'logits': logits.detach().float().cpu().numpy().tolist(),
      'loss': loss.item(),
      'gradients': {k: p.grad.norm().item() for k, p in self.network.named_parameters()},
    }

  def _seconds(self, function: Callable[[], Any], count: int) -> float:
    self._synchronize()
    start = time.perf_counter()
    for _ in range(count):
      function()
    self._synchronize()
    return time.perf_counter() - start

  def step(self, count: int) -> float:
    """Returns the seconds of `count` training steps."""

    def take_step() -> None:
      self.optimizer.zero_grad()
      F.cross_entropy(self._logits().float(), self.labels).backward()
      self.optimizer.step()

    return self._seconds(take_step, count)

  def infer(self, count: int) -> float:
    """Returns the seconds of `count` applications, after one that wakes the threads."""
    with torch.inference_mode():
      self._logits()
      return self._seconds(self._logits, count)

  def export(self) -> str:
    """Loads the network into onnxruntime and returns the version of onnxruntime."""
    import onnxruntime

    self.network.eval()
    path = self.request['arrays'] + '.onnx'
    torch.onnx.export(self.network, (self.images,), path, dynamo=False, input_names=['images'])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    self.session = onnxruntime.InferenceSession(path, options, providers=['CPUExecutionProvider'])
    self.fed = {'images': np.ascontiguousarray(self.images.numpy())}
    return onnxruntime.__version__

  def infer_onnx(self, count: int) -> float:
    """Returns the seconds of `count` applications by onnxruntime, after one that wakes threads."""
    run = functools.partial(self.session.run, None, self.fed)
    run()
    return self._seconds(run, count)

  def logits(self) -> list:
    """Returns the logits of the network in evaluation."""
    with torch.inference_mode():
      return self._logits().float().cpu().numpy().tolist()

  def answer(self, request: dict[str, Any]) -> Any:
    """Returns the answer to a request."""
    what = request['what']
    if what in ('infer', 'logits'):
      self.network.eval()
    if what in ('check', 'logits', 'export'):
      return getattr(self, what)()
    if what == 'memory':
      return torch.cuda.max_memory_allocated() if self.device == 'cuda' else 0
    return getattr(self, what)(request['count'])


def main() -> None:
  """Answers requests until stdin ends."""
  worker = None
  for line in sys.stdin:
    request = json.loads(line)
    if request['what'] == 'build':
      torch.manual_seed(0)
      worker = Worker(request)
      answer: Any = {'torch': torch.__version__, 'threads': torch.get_num_threads()}
    else:
      assert worker is not None, 'build first'
      answer = worker.answer(request)
    print(json.dumps(answer), flush=True)


if __name__ == '__main__':
  main()
