"""Copy me: a task is a function with @task. `count_words("to be or not")` queues it and returns at once."""

from tasks import task


@task(retries=3, retry_delay=10)
def count_words(text: str) -> int:
    """Count the words of a text.

    Safe to repeat: yes, it changes nothing.
    """
    return len(text.split())
