"""Prediction: which reads are likely to come, and which loads ahead of them pay."""
