#!/usr/bin/env bash
echo >&2 "[ERROR] bootstrap.sh has been removed from AL2023-based EKS AMIs. Use nodeadm."
exit 1
