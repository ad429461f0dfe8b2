// The nodes of the relay: one container app each, with one replica.
//
// Why not one app with many replicas: the nodes pass accepts on to each other, and replicas
// of an app have no address that others may rely on (microsoft/azure-container-apps #235 and
// #531; since workload profiles they cannot reach each other at all, #1659). Apps do: inside
// the environment each is reached by its name and the port of its TCP ingress.

param location string
param tags object
param environmentId string
param identityId string
param image string

@description('Registry that the identity pulls from. Empty: a public image.')
param registryServer string

@minLength(2)
@maxLength(10)
param names array

@description('RELAY_* settings of every node.')
param settings object

param vaultUri string

@description('Secrets of the vault that every node gets as files in /secrets.')
param secretNames array

@minValue(30)
@maxValue(570)
param drainSeconds int

var nodePort = 7443
var publicPort = 8080
var adminPort = 9090

var shared = union(settings, {
  RELAY_LISTEN: ':${publicPort}'
  RELAY_PLAIN: 'true' // TLS ends at the environment's ingress
  RELAY_ADMIN_LISTEN: ':${adminPort}' // for the probes; no ingress leads to it
  RELAY_NODE_LISTEN: ':${nodePort}'
  RELAY_PEERS: join(names, ',')
  RELAY_DRAIN: '${drainSeconds}s'
  RELAY_LOG_FORMAT: 'json'
})
var env = [
  for setting in items(shared): {
    name: setting.key
    value: setting.value
  }
]

resource nodes 'Microsoft.App/containerApps@2025-07-01' = [
  for name in names: {
    name: name
    location: location
    tags: tags
    identity: {
      type: 'UserAssigned'
      userAssignedIdentities: {
        '${identityId}': {}
      }
    }
    properties: {
      environmentId: environmentId
      workloadProfileName: 'Consumption'
      configuration: {
        activeRevisionsMode: 'Single'
        ingress: {
          external: false
          transport: 'tcp' // the proof of the nodes comes before any HTTP
          targetPort: nodePort
          exposedPort: nodePort
          additionalPortMappings: [
            {
              external: false
              targetPort: publicPort
              exposedPort: publicPort
            }
          ]
        }
        registries: empty(registryServer)
          ? []
          : [
              {
                server: registryServer
                identity: identityId
              }
            ]
        secrets: [
          for secret in secretNames: {
            name: secret
            keyVaultUrl: '${vaultUri}secrets/${secret}'
            identity: identityId
          }
        ]
      }
      template: {
        terminationGracePeriodSeconds: drainSeconds + 30 // at most 600; the drain has to end before
        containers: [
          {
            name: 'relay'
            image: image
            env: concat(env, [
              {
                name: 'RELAY_NODE_ADDRESS'
                value: '${name}:${nodePort}'
              }
            ])
            resources: {
              cpu: json('0.5')
              memory: '1Gi'
            }
            volumeMounts: [
              {
                volumeName: 'secrets'
                mountPath: '/secrets'
              }
            ]
            probes: [
              {
                type: 'Startup'
                httpGet: {
                  path: '/healthz'
                  port: adminPort
                }
                periodSeconds: 1
                failureThreshold: 60
              }
              {
                type: 'Liveness'
                httpGet: {
                  path: '/healthz'
                  port: adminPort
                }
                periodSeconds: 10
                failureThreshold: 3
              }
              {
                type: 'Readiness' // no while it drains: new bridges go to other nodes
                httpGet: {
                  path: '/readyz'
                  port: adminPort
                }
                periodSeconds: 5
                failureThreshold: 1
              }
            ]
          }
        ]
        volumes: [
          {
            name: 'secrets'
            storageType: 'Secret'
            secrets: [
              for secret in secretNames: {
                secretRef: secret
                path: secret
              }
            ]
          }
        ]
        scale: {
          minReplicas: 1
          maxReplicas: 1
        }
      }
    }
  }
]

output upstreams array = [for name in names: '${name}:${publicPort}']
