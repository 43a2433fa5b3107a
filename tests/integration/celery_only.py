"""A program that has Celery and nothing of Uptier; run by itself, isolated from this repository.

It gets what to do as JSON in its argument, and prints the replies as JSON.
"""

import json
import sys
import uuid
from typing import Any

from celery import Celery
from kombu import Queue


def main() -> None:
    order = json.loads(sys.argv[1])
    app = Celery(broker=order["broker"], set_as_current=False)
    app.conf.update(order["conf"])
    intake: Any = Queue(order["queue"], queue_arguments=order["arguments"])
    answers: Any = Queue(f"reply.{uuid.uuid4().hex}", **order["reply_queue"])
    replies = []
    with app.connection_for_read() as connection, connection.SimpleQueue(answers) as box:
        for task, kwargs in order["messages"]:
            app.send_task(task, kwargs=kwargs, queue=intake, reply_to=answers.name)
            reply = box.get(timeout=60)
            reply.ack()
            replies.append(reply.payload)
    ours = {"cli", "config", "ledger", "producers", "routing", "uptier", "workers"}
    found = sorted(ours & {name.partition(".")[0] for name in sys.modules})
    print(json.dumps({"replies": replies, "imported": found}))


if __name__ == "__main__":
    main()
