"""The parts of `reproduce_paper.py`: experiment (what is asked for), steps, processes, results (table and figure)."""
