locals {
  ipv4 = var.load_balancer ? [hcloud_load_balancer.relay[0].ipv4] : hcloud_primary_ip.ipv4[*].ip_address
  # A server has a network of IPv6 addresses and uses the first one.
  ipv6 = var.load_balancer ? [hcloud_load_balancer.relay[0].ipv6] : hcloud_server.node[*].ipv6_address

  records = { A = local.ipv4, AAAA = local.ipv6 }
}

resource "hcloud_zone_rrset" "relay" {
  for_each = var.dns_zone == "" ? {} : local.records

  zone    = var.dns_zone
  name    = var.relay_host == var.dns_zone ? "@" : trimsuffix(var.relay_host, ".${var.dns_zone}")
  type    = each.key
  ttl     = 60 # a node that is taken out is not asked for much longer
  records = [for address in each.value : { value = address }]
}
