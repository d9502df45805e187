# An EKS node image, hardened. Role image writes the variables; nothing here is meant to be edited per run.
#
# Taken by Packer 1.6.6 (built-in plugins) and by current Packer with plugins.pkr.hcl beside it. Therefore no
# metadata_options, imds_support, deprecate_at and data sources: 1.6.6 refuses them. The role does these by the API.

variable "region" {
  type = string
}

variable "source_ami" {
  type = string
}

variable "root_device_name" {
  type = string
}

variable "ami_name" {
  type = string
}

variable "ami_description" {
  type = string
}

variable "instance_type" {
  type = string
}

variable "subnet_id" {
  type = string
}

variable "security_group_id" {
  type = string
}

variable "keypair_name" {
  type = string
}

variable "private_key_file" {
  type = string
}

variable "instance_profile" {
  type = string
}

variable "associate_public_ip" {
  type        = bool
  description = "null leaves it to the subnet."
}

variable "ssh_interface" {
  type        = string
  description = "public_ip, private_ip or session_manager; empty leaves the choice to Packer."
}

variable "ssh_username" {
  type = string
}

variable "ssh_host" {
  type        = string
  description = "Only for the sandbox, whose machines listen on loopback."
  default     = ""
}

variable "ssh_port" {
  type    = number
  default = 22
}

variable "endpoint_url" {
  type        = string
  description = "Only for the sandbox: where EC2 answers instead of AWS."
  default     = ""
}

variable "encrypt" {
  type = bool
}

variable "kms_key_id" {
  type = string
}

variable "root_volume_size" {
  type        = number
  description = "GiB"
}

variable "second_volume_size" {
  type        = number
  description = "GiB; 0 for none."
}

variable "second_device_name" {
  type = string
}

variable "tags" {
  type        = map(string)
  description = "For everything that exists during the build: these find it again if the build dies."
}

variable "ansible_playbook" {
  type = string
}

variable "playbook" {
  type = string
}

variable "playbook_variables" {
  type        = string
  description = "Path of a JSON file."
}

variable "manifest" {
  type = string
}

source "amazon-ebs" "node" {
  region                      = var.region
  custom_endpoint_ec2         = var.endpoint_url
  source_ami                  = var.source_ami
  instance_type               = var.instance_type
  subnet_id                   = var.subnet_id
  security_group_id           = var.security_group_id
  iam_instance_profile        = var.instance_profile
  associate_public_ip_address = var.associate_public_ip

  ami_name        = var.ami_name
  ami_description = var.ami_description
  tags            = var.tags
  run_tags        = merge(var.tags, { Name = "cisdriver bake ${var.ami_name}" })
  run_volume_tags = var.tags
  snapshot_tags   = var.tags

  # Encrypted from the start: encrypt_boot would copy the finished image, and leave the first one to be deleted.
  launch_block_device_mappings {
    device_name = var.root_device_name
    volume_type = "gp3"
    volume_size = var.root_volume_size
    # The least that gp3 has; 1.6.6 wants both written out.
    iops                  = 3000
    throughput            = 125
    delete_on_termination = true
    encrypted             = var.encrypt
    kms_key_id            = var.kms_key_id
  }

  # Blank; role partitions lays it out. CreateImage takes every attached volume into the image, mapping and all.
  dynamic "launch_block_device_mappings" {
    for_each = var.second_volume_size > 0 ? [var.second_device_name] : []
    content {
      device_name           = launch_block_device_mappings.value
      volume_type           = "gp3"
      volume_size           = var.second_volume_size
      iops                  = 3000
      throughput            = 125
      delete_on_termination = true
      encrypted             = var.encrypt
      kms_key_id            = var.kms_key_id
    }
  }

  communicator         = "ssh"
  ssh_username         = var.ssh_username
  ssh_keypair_name     = var.keypair_name
  ssh_private_key_file = var.private_key_file
  ssh_interface        = var.ssh_interface
  ssh_host             = var.ssh_host
  ssh_port             = var.ssh_port
  ssh_timeout          = "10m"

  # Snapshots of 20 GiB and more outlast the default of 20 minutes now and then.
  aws_polling {
    delay_seconds = 15
    max_attempts  = 240
  }
}

build {
  sources = ["source.amazon-ebs.node"]

  provisioner "ansible" {
    command         = var.ansible_playbook
    playbook_file   = var.playbook
    user            = var.ssh_username
    extra_arguments = ["--extra-vars", "@${var.playbook_variables}"]
    # Packer's own SSH proxy offers ssh-rsa alone, and would end with the reboot.
    use_proxy = false
  }

  post-processor "manifest" {
    output     = var.manifest
    strip_path = true
  }
}
