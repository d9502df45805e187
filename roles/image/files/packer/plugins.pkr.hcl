# Only Packer 1.7 and later reads this file: they are given the folder, older ones eks.pkr.hcl alone,
# which they load without its neighbours, and which their built-in amazon and ansible parts serve.
packer {
  required_version = ">= 1.7.0"
  required_plugins {
    amazon = {
      source = "github.com/hashicorp/amazon"
      # 1.2.2 and later open the Session Manager tunnel again after the reboot (packer-plugin-amazon #311).
      version = ">= 1.3.0, < 2.0.0"
    }
    ansible = {
      source  = "github.com/hashicorp/ansible"
      version = ">= 1.1.0, < 2.0.0"
    }
  }
}
