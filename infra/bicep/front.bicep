// The relay's one address: the environment's ingress ends TLS, and Caddy gives each request
// to one of the nodes, which need no affinity.
//
// The ingress cuts a connection that was silent for 240 s, and that cannot be set without a
// dedicated profile. The relay pings each side every 15 s (RELAY_PING).
//
// A replica that is replaced ends the bridges that run through it, and clients dial again:
// Caddy has nothing to wait for in a WebSocket. A node that is replaced drains.

param location string
param tags object
param environmentId string
param name string
param image string

@description('host:port of each node.')
param upstreams array

@minValue(2)
@maxValue(10)
param replicas int

@description('Name of your own that leads here. Empty: the one that Azure makes.')
param host string

@description('Resource ID of the certificate for it, in the environment. Empty: none yet.')
param certificateId string

resource front 'Microsoft.App/containerApps@2025-07-01' = {
  name: name
  location: location
  tags: tags
  properties: {
    environmentId: environmentId
    workloadProfileName: 'Consumption'
    configuration: {
      activeRevisionsMode: 'Single'
      ingress: {
        external: true
        transport: 'http' // HTTP/1.1, which WebSockets of the relay's clients are made of
        targetPort: 8080
        allowInsecure: false
        stickySessions: {
          affinity: 'none' // any node will do
        }
        customDomains: empty(host)
          ? []
          : [
              {
                name: host
                bindingType: empty(certificateId) ? 'Disabled' : 'SniEnabled'
                certificateId: empty(certificateId) ? null : certificateId
              }
            ]
      }
      secrets: [
        {
          name: 'caddyfile' // no secret; this is how an app is given a file
          value: loadTextContent('front/Caddyfile')
        }
      ]
    }
    template: {
      containers: [
        {
          name: 'caddy'
          image: image
          command: ['caddy']
          args: ['run', '--config', '/front/Caddyfile', '--adapter', 'caddyfile']
          env: [
            {
              name: 'FRONT_UPSTREAMS'
              value: join(upstreams, ' ')
            }
          ]
          resources: {
            cpu: json('0.5')
            memory: '1Gi'
          }
          volumeMounts: [
            {
              volumeName: 'front'
              mountPath: '/front'
            }
          ]
          probes: [
            {
              type: 'Readiness'
              tcpSocket: {
                port: 8080
              }
              periodSeconds: 5
            }
          ]
        }
      ]
      volumes: [
        {
          name: 'front'
          storageType: 'Secret'
          secrets: [
            {
              secretRef: 'caddyfile'
              path: 'Caddyfile'
            }
          ]
        }
      ]
      scale: {
        // The same number always: the default rule counts ten requests a replica, and each
        // bridge is one for as long as it lives, which taking a replica away would end.
        minReplicas: replicas
        maxReplicas: replicas
      }
    }
  }
}

output host string = front.properties.configuration.ingress.fqdn
