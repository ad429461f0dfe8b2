locals {
  network_zone = {
    nbg1 = "eu-central"
    fsn1 = "eu-central"
    hel1 = "eu-central"
    ash  = "us-east"
    hil  = "us-west"
    sin  = "ap-southeast"
  }[var.location]

  # .1 is the gateway, .10 the load balancer.
  node_ips        = [for i in range(var.nodes) : cidrhost(var.network_cidr, 11 + i)]
  balancer_ip     = cidrhost(var.network_cidr, 10)
  node_port       = 7443
  public_port     = 8080
  admin_port      = 9090
  credentials     = "/run/credentials/relay.service/secrets_"
  direct_methods  = contains(["method", "auto"], lookup(var.relay_settings, "RELAY_SIGNALER", "c2d"))
  methods_of_unit = { F1 = 32, S1 = 32, S2 = 96, S3 = 4800 }

  # What a hub allows in direct methods a second, less a fifth, as the relay has it by itself.
  # Nodes do not know of each other's calls, so each gets its share.
  methods = local.methods_of_unit[lookup(var.relay_settings, "RELAY_HUB_TIER", "S1")] * tonumber(lookup(var.relay_settings, "RELAY_HUB_UNITS", "1"))

  # Defaults, what was given, and what follows from the servers, in this order.
  settings = [for i in range(var.nodes) : merge(
    {
      RELAY_API_KEYS = "${local.credentials}api-keys"
      RELAY_AUDIT    = "/var/log/relay/audit.jsonl"
    },
    local.direct_methods && var.nodes > 1 ? { RELAY_HUB_RATE = tostring(local.methods / var.nodes) } : {},
    var.relay_settings,
    {
      RELAY_PUBLIC_URL      = "wss://${var.relay_host}"
      RELAY_PLAIN           = "true"
      RELAY_TOKEN_KEYS_FILE = "${local.credentials}token-keys"
    },
    var.load_balancer ? {
      RELAY_LISTEN          = "${local.node_ips[i]}:${local.public_port}"
      RELAY_ADMIN_LISTEN    = "${local.node_ips[i]}:${local.admin_port}"
      RELAY_TRUSTED_PROXIES = local.balancer_ip
      RELAY_LAME_DUCK       = "30s" # three health checks and some
      } : {
      RELAY_LISTEN          = "127.0.0.1:${local.public_port}"
      RELAY_ADMIN_LISTEN    = "127.0.0.1:${local.admin_port}"
      RELAY_TRUSTED_PROXIES = "127.0.0.1"
    },
    var.nodes > 1 ? {
      RELAY_NODE_LISTEN = "${local.node_ips[i]}:${local.node_port}"
      RELAY_PEERS       = join(",", local.node_ips)
    } : {},
  )]
}

resource "hcloud_ssh_key" "operator" {
  for_each = var.ssh_keys

  name       = "${var.name}-${each.key}"
  public_key = each.value
}

# No two nodes on one host.
resource "hcloud_placement_group" "relay" {
  name = var.name
  type = "spread"
}

# Addresses outlive servers, so that records stay when a server is replaced.
resource "hcloud_primary_ip" "ipv4" {
  count = var.nodes

  name        = "${var.name}-${count.index}-v4"
  type        = "ipv4"
  location    = var.location
  auto_delete = false
}

resource "hcloud_primary_ip" "ipv6" {
  count = var.nodes

  name        = "${var.name}-${count.index}-v6"
  type        = "ipv6"
  location    = var.location
  auto_delete = false
}

resource "hcloud_server" "node" {
  count = var.nodes

  name                     = "${var.name}-${count.index}"
  server_type              = var.server_type
  image                    = "debian-12"
  location                 = var.location
  placement_group_id       = hcloud_placement_group.relay.id
  firewall_ids             = [hcloud_firewall.relay.id]
  ssh_keys                 = [for key in hcloud_ssh_key.operator : key.id]
  shutdown_before_deletion = true # the unit drains

  public_net {
    ipv4_enabled = true
    ipv4         = hcloud_primary_ip.ipv4[count.index].id
    ipv6_enabled = true
    ipv6         = hcloud_primary_ip.ipv6[count.index].id
  }

  network {
    network_id = hcloud_network.relay.id
    ip         = local.node_ips[count.index]
  }

  user_data = templatefile("${path.module}/templates/cloud-init.yaml.tftpl", {
    load_balancer = var.load_balancer
    relay_url     = var.relay_url
    relay_sha256  = var.relay_sha256
    unit          = file("${path.module}/../systemd/relay.service")
    install       = file("${path.module}/files/relay-install")
    secrets       = file("${path.module}/files/relay-secrets")
    settings      = join("\n", [for name, value in local.settings[count.index] : "${name}=${value}"])
    reboot_at     = format("%02d:%02d", 2 + floor(count.index / 3), count.index % 3 * 20) # 20 min apart, so that one drains at a time
    caddyfile = templatefile("${path.module}/templates/Caddyfile.tftpl", {
      relay_host  = var.relay_host
      acme_email  = var.acme_email
      public_port = local.public_port
      others      = [for ip in local.node_ips : ip if ip != local.node_ips[count.index]]
    })
  })

  lifecycle {
    # A new version or setting would replace all servers at once. README.md has how to bring
    # it to servers that run, and how to replace them one by one.
    ignore_changes = [user_data, ssh_keys]
  }

  depends_on = [hcloud_network_subnet.relay]
}
