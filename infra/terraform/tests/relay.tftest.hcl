mock_provider "hcloud" {
  mock_resource "hcloud_ssh_key" {
    defaults = { id = "11" }
  }
  mock_resource "hcloud_network" {
    defaults = { id = "22" }
  }
  mock_resource "hcloud_network_subnet" {
    defaults = { id = "22-10.20.0.0/24" }
  }
  mock_resource "hcloud_firewall" {
    defaults = { id = "33" }
  }
  mock_resource "hcloud_placement_group" {
    defaults = { id = "44" }
  }
  mock_resource "hcloud_primary_ip" {
    defaults = { id = 55, ip_address = "192.0.2.10" }
  }
  mock_resource "hcloud_server" {
    defaults = { id = "66", ipv6_address = "2001:db8::1" }
  }
  mock_resource "hcloud_managed_certificate" {
    defaults = { id = "77" }
  }
  mock_resource "hcloud_load_balancer" {
    defaults = { id = "88", ipv4 = "198.51.100.1", ipv6 = "2001:db8:1::1" }
  }
}

variables {
  relay_host   = "relay.example.com"
  relay_url    = "https://downloads.example.com/relay-1.2.3-linux-amd64"
  relay_sha256 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
  ssh_keys     = { ops = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEXAMPLEEXAMPLEEXAMPLEEXAMPLEEXAMPLEEXAMPLE ops" }
  relay_settings = {
    RELAY_SIGNALER               = "auto"
    RELAY_HUB_TIER               = "S1"
    RELAY_HUB_UNITS              = "2"
    RELAY_HUB_HOST               = "hub.azure-devices.net"
    RELAY_HUB_CREDENTIAL         = "client-certificate"
    RELAY_HUB_TENANT_ID          = "00000000-0000-0000-0000-000000000000"
    RELAY_HUB_CLIENT_ID          = "00000000-0000-0000-0000-000000000000"
    RELAY_HUB_CLIENT_CERTIFICATE = "/run/credentials/relay.service/secrets_hub.pem"
  }
}

run "closed_by_default" {
  command = plan

  assert {
    condition     = toset([for r in hcloud_firewall.relay.rule : r.port if r.protocol == "tcp"]) == toset(["80", "443"])
    error_message = "only 443, and 80 for the certificate, are open by default; ssh is not"
  }
  assert {
    condition     = alltrue([for r in hcloud_firewall.relay.rule : r.direction == "in" && contains(["tcp", "icmp"], r.protocol)])
    error_message = "there are rules for TCP and ICMP, and for what comes in, only"
  }
}

run "two_nodes" {
  command = plan

  assert {
    condition     = length(hcloud_server.node) == 2 && hcloud_placement_group.relay.type == "spread"
    error_message = "two nodes, on two hosts"
  }
  assert {
    condition     = [for s in hcloud_server.node : one(s.network).ip] == ["10.20.0.11", "10.20.0.12"]
    error_message = "each node has an address of its own in the private network"
  }
  assert {
    condition     = alltrue([for s in hcloud_server.node : s.shutdown_before_deletion])
    error_message = "a node drains before its server is deleted"
  }
  assert {
    condition     = length(hcloud_load_balancer.relay) == 0 && length(hcloud_zone_rrset.relay) == 0
    error_message = "neither load balancer nor records unless asked for"
  }
  assert {
    condition     = alltrue([for ip in concat(hcloud_primary_ip.ipv4, hcloud_primary_ip.ipv6) : !ip.auto_delete])
    error_message = "addresses outlive servers"
  }
}

run "apply" {
  assert {
    condition     = output.relay_url == "wss://relay.example.com"
    error_message = "the relay's URL"
  }
  assert {
    condition     = length(output.dns_records.A) == 2 && length(output.dns_records.AAAA) == 2
    error_message = "a record for each node"
  }
  assert {
    condition     = output.deliver_secrets[0] == "tar -C secrets -c . | ssh root@192.0.2.10 relay-secrets"
    error_message = "the command that delivers secrets"
  }
  assert {
    condition     = can(yamldecode(hcloud_server.node[0].user_data)) && length(hcloud_server.node[0].user_data) < 32768
    error_message = "user data is YAML of at most 32 KiB"
  }
  assert {
    condition     = one([for f in yamldecode(hcloud_server.node[0].user_data).write_files : f.content if f.path == "/etc/systemd/system/relay.service"]) == file("../systemd/relay.service")
    error_message = "the unit is the one of infra/systemd, to the letter"
  }
  assert {
    condition = toset(split("\n", trimspace(one([for f in yamldecode(hcloud_server.node[1].user_data).write_files : f.content if f.path == "/etc/relay/relay.env"])))) == toset([
      "RELAY_ADMIN_LISTEN=127.0.0.1:9090",
      "RELAY_API_KEYS=/run/credentials/relay.service/secrets_api-keys",
      "RELAY_AUDIT=/var/log/relay/audit.jsonl",
      "RELAY_HUB_CLIENT_CERTIFICATE=/run/credentials/relay.service/secrets_hub.pem",
      "RELAY_HUB_CLIENT_ID=00000000-0000-0000-0000-000000000000",
      "RELAY_HUB_CREDENTIAL=client-certificate",
      "RELAY_HUB_HOST=hub.azure-devices.net",
      "RELAY_HUB_RATE=32",
      "RELAY_HUB_TENANT_ID=00000000-0000-0000-0000-000000000000",
      "RELAY_HUB_TIER=S1",
      "RELAY_HUB_UNITS=2",
      "RELAY_LISTEN=127.0.0.1:8080",
      "RELAY_NODE_LISTEN=10.20.0.12:7443",
      "RELAY_PEERS=10.20.0.11,10.20.0.12",
      "RELAY_PLAIN=true",
      "RELAY_PUBLIC_URL=wss://relay.example.com",
      "RELAY_SIGNALER=auto",
      "RELAY_TOKEN_KEYS_FILE=/run/credentials/relay.service/secrets_token-keys",
      "RELAY_TRUSTED_PROXIES=127.0.0.1",
    ])
    error_message = "the settings of the second node"
  }
  assert {
    condition     = strcontains(one([for f in yamldecode(hcloud_server.node[0].user_data).write_files : f.content if f.path == "/etc/caddy/Caddyfile"]), "reverse_proxy 10.20.0.12:80")
    error_message = "Caddy asks the other node for proofs that it does not know"
  }
  assert {
    condition     = yamldecode(hcloud_server.node[0].user_data).ssh_pwauth == false && contains(yamldecode(hcloud_server.node[0].user_data).packages, "unattended-upgrades")
    error_message = "no passwords, and upgrades by themselves"
  }
  assert {
    condition     = [for s in hcloud_server.node : regex("Reboot-Time \"([0-9:]+)\"", s.user_data)[0]] == ["02:00", "02:20"]
    error_message = "nodes start again one after another"
  }
}

run "one_node" {
  state_key = "one_node" # a server that is there keeps its user data
  variables {
    nodes      = 1
    acme_email = "ops@example.com"
  }

  assert {
    condition     = !strcontains(hcloud_server.node[0].user_data, "RELAY_PEERS") && !strcontains(hcloud_server.node[0].user_data, "RELAY_HUB_RATE") && !strcontains(hcloud_server.node[0].user_data, "X-Proof-Hop")
    error_message = "a node that is alone has no peers"
  }
  assert {
    condition     = startswith(one([for f in yamldecode(hcloud_server.node[0].user_data).write_files : f.content if f.path == "/etc/caddy/Caddyfile"]), "{\n\temail ops@example.com\n}\n")
    error_message = "the authority's contact"
  }
}

run "five_nodes" {
  state_key = "five_nodes" # a server that is there keeps its user data
  variables {
    nodes = 5
  }

  assert {
    condition     = length(regexall("reverse_proxy 10\\.20\\.0\\.1[1-5]:80", hcloud_server.node[2].user_data)) == 4 && !strcontains(hcloud_server.node[2].user_data, "10.20.0.13:80")
    error_message = "all others are asked for proofs"
  }
  assert {
    condition     = strcontains(hcloud_server.node[0].user_data, "RELAY_HUB_RATE=12.8\n")
    error_message = "each node has its share of the hub"
  }
}

run "load_balancer" {
  state_key = "load_balancer" # a server that is there keeps its user data
  variables {
    load_balancer = true
    dns_zone      = "example.com"
    nodes         = 3
    location      = "ash"
  }

  assert {
    condition     = length([for r in hcloud_firewall.relay.rule : r if r.protocol == "tcp"]) == 0
    error_message = "behind a load balancer no port of a node is open"
  }
  assert {
    condition     = !contains(yamldecode(hcloud_server.node[0].user_data).packages, "caddy") && !strcontains(hcloud_server.node[0].user_data, "Caddyfile")
    error_message = "TLS ends at the load balancer"
  }
  assert {
    condition = alltrue([for line in ["RELAY_LISTEN=10.20.0.11:8080", "RELAY_ADMIN_LISTEN=10.20.0.11:9090", "RELAY_TRUSTED_PROXIES=10.20.0.10", "RELAY_LAME_DUCK=30s"] :
    strcontains(hcloud_server.node[0].user_data, line)])
    error_message = "nodes listen in the private network, and believe the load balancer"
  }
  assert {
    condition     = alltrue([for t in hcloud_load_balancer_target.node : t.use_private_ip]) && length(hcloud_load_balancer_target.node) == 3
    error_message = "nodes are reached in the private network"
  }
  assert {
    condition = (hcloud_load_balancer_service.relay[0].protocol == "https" && one(hcloud_load_balancer_service.relay[0].http).timeout_idle >= 35
      && hcloud_load_balancer_service.relay[0].destination_port == 8080
      && one(hcloud_load_balancer_service.relay[0].health_check).port == 9090
    && one(one(hcloud_load_balancer_service.relay[0].health_check).http).path == "/readyz")
    error_message = "HTTPS, longer than what the relay takes to call a side dead, and only nodes that are ready"
  }
  assert {
    condition     = hcloud_network_subnet.relay.network_zone == "us-east" && hcloud_load_balancer_network.relay[0].ip == "10.20.0.10"
    error_message = "the network is where the servers are"
  }
  assert {
    condition     = hcloud_zone_rrset.relay["A"].name == "relay" && one(hcloud_zone_rrset.relay["A"].records).value == "198.51.100.1"
    error_message = "the record leads to the load balancer"
  }
}

run "records" {
  state_key = "records" # a server that is there keeps its user data
  variables {
    dns_zone   = "example.com"
    relay_host = "example.com"
  }

  assert {
    condition     = hcloud_zone_rrset.relay["AAAA"].name == "@" && hcloud_zone_rrset.relay["A"].ttl <= 60
    error_message = "a record at the zone's own name"
  }
}

run "ssh_where_asked_for" {
  command = plan
  variables {
    ssh_cidrs = ["192.0.2.7/32", "2001:db8::/48"]
  }

  assert {
    condition     = [for r in hcloud_firewall.relay.rule : r.source_ips if r.port == "22"] == [toset(["192.0.2.7/32", "2001:db8::/48"])]
    error_message = "ssh is open to these, and to nobody else"
  }
}

run "messages_have_no_share_of_methods" {
  state_key = "messages_have_no_share_of_methods" # a server that is there keeps its user data
  command   = plan
  variables {
    relay_settings = { RELAY_SIGNALER = "c2d", RELAY_HUB_CONNECTION_STRING_FILE = "/run/credentials/relay.service/secrets_hub" }
  }

  assert {
    condition     = !strcontains(hcloud_server.node[0].user_data, "RELAY_HUB_RATE")
    error_message = "the relay refuses RELAY_HUB_RATE with the signaler c2d"
  }
}
