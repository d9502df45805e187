#!/usr/bin/env bash
echo "EKS log collector (stand-in)"
