"""What is kept warm, and when. Each file reads as a table: one decorator line is a job's whole policy.

Every worker sees every fire time; one of them runs it. Warming twice is safe: what is fresh is passed over.
"""
