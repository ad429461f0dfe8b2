variable "name" {
  description = "First part of every name."
  type        = string
  default     = "bridge"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,30}[a-z0-9]$", var.name))
    error_message = "name is 3 to 32 small letters, digits and hyphens, as bridge: server names are host names."
  }
}

variable "relay_host" {
  description = "Name by which devices and requesters reach the relay."
  type        = string

  validation {
    condition     = can(regex("^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\\.)+[a-z]{2,}$", var.relay_host)) && length(var.relay_host) <= 253
    error_message = "relay_host is a DNS name without scheme, port or path, as relay.example.com."
  }
}

variable "nodes" {
  description = "How many nodes the relay has, each on a server of its own."
  type        = number
  default     = 2

  validation {
    condition     = var.nodes >= 1 && var.nodes <= 10 && floor(var.nodes) == var.nodes
    error_message = "nodes is 1 to 10: a spread placement group holds ten servers."
  }

  validation {
    condition     = var.load_balancer || var.nodes <= 5
    error_message = "nodes is at most 5 without load_balancer: each gets a certificate for relay_host by itself, and Let's Encrypt makes five of one name in a week."
  }
}

variable "server_type" {
  description = "Type of the servers: cx.. and cpx.. share their processors, ccx.. do not, cax.. are arm64."
  type        = string
  default     = "cx23"

  validation {
    condition     = can(regex("^(cx|cpx|cax|ccx)[0-9]{2}$", var.server_type)) && !contains(["cx11", "cx21", "cx31", "cx41", "cx51"], var.server_type)
    error_message = "server_type is one that can be ordered, as cx23, cpx22, cax11 or ccx13; hcloud server-type list has them all."
  }
}

variable "location" {
  description = "Where the servers are."
  type        = string
  default     = "nbg1"

  validation {
    condition     = contains(["nbg1", "fsn1", "hel1", "ash", "hil", "sin"], var.location)
    error_message = "location is nbg1, fsn1, hel1, ash, hil or sin."
  }
}

variable "network_cidr" {
  description = "Private network of the nodes."
  type        = string
  default     = "10.20.0.0/24"

  validation {
    condition     = can(regex("^(10\\.|192\\.168\\.|172\\.(1[6-9]|2[0-9]|3[01])\\.)", var.network_cidr)) && can(cidrhost(var.network_cidr, 20))
    error_message = "network_cidr is a private IPv4 range with room for 20 addresses, as 10.20.0.0/24."
  }
}

variable "ssh_keys" {
  description = "Public keys of who may log in as root, by name. Secrets are delivered that way."
  type        = map(string)

  validation {
    condition     = length(var.ssh_keys) > 0 && alltrue([for key in values(var.ssh_keys) : can(regex("^(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(256|384|521)|sk-[a-z0-9@.-]+) [A-Za-z0-9+/=]+", key))])
    error_message = "ssh_keys has at least one public key, as {ops = \"ssh-ed25519 AAAA… ops\"}; without one Hetzner sends a root password by mail."
  }
}

variable "ssh_cidrs" {
  description = "Where ssh is open to: none by default. Open it to deliver secrets, and close it again."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for cidr in var.ssh_cidrs : can(cidrhost(cidr, 0)) && !endswith(cidr, "/0")])
    error_message = "ssh_cidrs are ranges, as 192.0.2.7/32, and never the whole Internet."
  }
}

variable "relay_url" {
  description = "Where servers download the relay when they are made: a static program for their processor."
  type        = string

  validation {
    condition     = can(regex("^https://[^[:space:]'\"]+$", var.relay_url))
    error_message = "relay_url begins with https://, as https://downloads.example.com/relay-1.2.3-linux-amd64."
  }
}

variable "relay_sha256" {
  description = "Its SHA-256."
  type        = string

  validation {
    condition     = can(regex("^[0-9a-f]{64}$", var.relay_sha256))
    error_message = "relay_sha256 is 64 hexadecimal digits in small letters, from sha256sum."
  }
}

variable "relay_settings" {
  description = "Settings of the relay: the output relaySettings of infra/bicep, and what else it shall have. Files among them are named as /run/credentials/relay.service/secrets_NAME."
  type        = map(string)

  validation {
    condition     = alltrue([for name in keys(var.relay_settings) : can(regex("^RELAY_[A-Z0-9_]+$", name))])
    error_message = "relay_settings are RELAY_NAME = value; relay --help has the names."
  }

  validation {
    condition = length(setintersection(keys(var.relay_settings), [
      "RELAY_TOKEN_KEYS", "RELAY_SIGNAL_KEY", "RELAY_HUB_CONNECTION_STRING", "RELAY_HUB_CLIENT_SECRET", "RELAY_HUB_CLIENT_CERTIFICATE_PASSWORD",
    ])) == 0
    error_message = "relay_settings has a secret: it would be in Terraform's state and in the server's metadata, which every process there can read. Deliver it as a file with relay-secrets, and set the same name with _FILE behind it."
  }

  validation {
    condition = length(setintersection(keys(var.relay_settings), [
      "RELAY_LISTEN", "RELAY_PLAIN", "RELAY_PUBLIC_URL", "RELAY_TRUSTED_PROXIES", "RELAY_PROXY_PROTOCOL", "RELAY_ADMIN_LISTEN", "RELAY_TLS_CERT",
      "RELAY_TLS_KEY", "RELAY_NODE_LISTEN", "RELAY_NODE_ADDRESS", "RELAY_POD_IP", "RELAY_PEERS", "RELAY_TOKEN_KEYS_FILE", "RELAY_DRAIN", "RELAY_LAME_DUCK",
    ])) == 0
    error_message = "relay_settings has one that follows from the servers and is set here: a listener, RELAY_PUBLIC_URL, RELAY_TRUSTED_PROXIES, TLS, a node's address, RELAY_PEERS, RELAY_TOKEN_KEYS_FILE, RELAY_DRAIN or RELAY_LAME_DUCK. Leave it out."
  }

  validation {
    condition     = alltrue([for value in values(var.relay_settings) : can(regex("^[^[:cntrl:]\"'\\\\$`]*$", value))])
    error_message = "relay_settings has a value with a line break, a quotation mark, a backslash, a dollar or a backtick, which the file of the unit would not give to the relay as it is."
  }

  validation {
    condition     = !contains(["managed-identity", "azure-cli"], lookup(var.relay_settings, "RELAY_HUB_CREDENTIAL", ""))
    error_message = "RELAY_HUB_CREDENTIAL is of Azure's own machines; here it is client-certificate, client-secret, workload-identity with a token of your own, or nothing with RELAY_HUB_CONNECTION_STRING_FILE."
  }
}

variable "acme_email" {
  description = "Whom the certificate authority writes to when certificates run out. Empty: nobody."
  type        = string
  default     = ""

  validation {
    condition     = var.acme_email == "" || can(regex("^[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\\.[A-Za-z]{2,}$", var.acme_email))
    error_message = "acme_email is an address, as ops@example.com, or empty."
  }
}

variable "dns_zone" {
  description = "Zone at Hetzner DNS, where the records of relay_host are made. Empty: make them yourself, from the output dns_records."
  type        = string
  default     = ""

  validation {
    condition     = var.dns_zone == "" || var.relay_host == var.dns_zone || endswith(var.relay_host, ".${var.dns_zone}")
    error_message = "dns_zone is what relay_host ends with, as example.com for relay.example.com."
  }
}

variable "load_balancer" {
  description = "One address in front of the nodes, by a load balancer that does TLS. Without it relay_host has the addresses of all nodes, and Caddy on each does TLS."
  type        = bool
  default     = false

  validation {
    condition     = !var.load_balancer || var.dns_zone != ""
    error_message = "load_balancer needs dns_zone: Hetzner makes its certificate, and proves by a record that the name is yours."
  }
}

variable "load_balancer_type" {
  description = "Type of the load balancer: lb11 holds 10,000 connections, lb21 20,000, lb31 40,000. A bridge is two."
  type        = string
  default     = "lb11"

  validation {
    condition     = contains(["lb11", "lb21", "lb31"], var.load_balancer_type)
    error_message = "load_balancer_type is lb11, lb21 or lb31."
  }
}
