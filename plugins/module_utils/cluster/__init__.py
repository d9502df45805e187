# Copyright the cisdriver authors. Apache-2.0.
"""What the modules of role cluster share. They run on the controller, beside boto3."""
