"""How a flow is called: `flow_CLIENT.py STEP JSON` prints the step's answer as JSON. Runs in the client's environment.

Every flow has the same steps, each made with its client's own means, waiters included:

    look(image)            -> {"regions": [name], "zones": [name], "images": {name: id}, "account": id}, None for what
                              the client has no call for
    refusal()              -> the error code of a look at an instance that does not exist
    launch(image, type, zone, name, key, user_data) -> {"id": …, "address": public address, "private_key": text}
    find(tag, value)       -> [id of every instance with the tag]
    tag(id, tag, value), stop(id), terminate(id, key) -> None, when it is so
    start(id)              -> public address
    console(id)            -> text
"""

import json
import sys


def serve(steps):
    """Take the step named by the first argument, with the second's values, and print what it returns."""
    answer = steps[sys.argv[1]](**json.loads(sys.argv[2]))
    print(json.dumps(answer))
