"""The contestants: one module each, imported in the contestant's own environment with the project on its path.

A module reads from the environment, when it is imported: BENCHMARK_FOLDER (an empty folder of its own),
BENCHMARK_REDIS (the URL of a redis-server of its own) and BENCHMARK_MARKS (the file of marks). It offers:

    NAME          how the table calls it, such as "Celery + Redis"
    PACKAGES      the distributions whose versions are shown
    NEEDS_REDIS   whether it needs a redis-server
    DRAIN_JOBS    as many jobs as it drains in some 2 s or more on a slow machine, at most 10 000
    IN_BULK       what its bulk call is, in words
    DURABLE       what an accepted job survives as it comes, in words
    enqueue(n)              enqueue a job that calls marks.mark(n); returns a handle
    enqueue_many(numbers)   enqueue a job for each, in bulk if it can
    enqueue_in(n, delay_s)  enqueue a job for later; None if it cannot
    MAY_START_EARLY whether a job for later may start before its time: RQ rounds to whole seconds
    wait(handle, timeout_s) its own way to block for a job's value; None if it has none
    waiting()               how many jobs are accepted and not started, read from its store
    WORKERS       commands that start its workers: 4 jobs at once in all; or
    consuming()   a context manager that runs the jobs in this process
    WEB           the WSGI app of a minimal site that can enqueue, such as
                  "tests.kit.benchmarks.contestants.site:app"

and, if there is more to hold it to, check_ran(count), which is called when so many jobs have run.

A module for mail (celery_mail, postroom_mail) reads BENCHMARK_MAIL_URL too, and offers of all this WORKERS or
consuming(), check_ran(count), and

    enqueue_mails(numbers)  enqueue a mail (letter.py) to the reader of each number; the server marks what it takes
"""
