"""One run on many machines: a Ray cluster, with the pipeline of one machine in each worker.

    sources ─▶ ledger: blocks ─▶ worker: pipeline ─▶ ledger: Results in input order
                                    └─▶ parts, written where the worker is

Ray's actors are used, and not Ray Data: inputs are handed out as they are found, and a worker has its next block before
it has replied to the one before. Ray starts the workers, carries blocks and replies, and tells of deaths. Which inputs
were lost by one, and what is to be done with them, is in ledger.py, which knows nothing of Ray.
"""
