#!/bin/sh
# The interpreter that an interrupted run is given: each module executes with the hook, in an order that is always the same.
PYTHONPATH=/run/interruption PYTHONHASHSEED=0 PYTHONDONTWRITEBYTECODE=1
export PYTHONPATH PYTHONHASHSEED PYTHONDONTWRITEBYTECODE
exec /usr/bin/python3 "$@"
