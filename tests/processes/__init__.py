"""Trainings in several processes of `torch.distributed.run`, for test_processes.py."""
