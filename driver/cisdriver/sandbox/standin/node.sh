#!/bin/bash
# usage: node.sh SOURCE, inside a container made from the stock image
# The same node after it joined a cluster: with the user data that nodeadm reads at each boot.
set -eu
umask 077
mkdir -p /var/lib/cloud/instance
cat > /var/lib/cloud/instance/user-data.txt <<'END'
---
apiVersion: node.eks.aws/v1alpha1
kind: NodeConfig
spec:
  cluster:
    name: standin
    apiServerEndpoint: https://0123456789ABCDEF0123456789ABCDEF.gr7.us-west-2.eks.amazonaws.com
    certificateAuthority: U3RhbmQtaW4gY2x1c3Rlcg==
    cidr: 10.100.0.0/16
END
