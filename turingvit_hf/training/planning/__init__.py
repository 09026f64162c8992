# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""What a stage or a chain will cost, told before a GPU is rented: operations, parameters, memory, days."""
