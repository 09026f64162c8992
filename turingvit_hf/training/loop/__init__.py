# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""What surrounds the training loop: checkpoints, averages of weights, guards, signals, evaluations, throughput."""
