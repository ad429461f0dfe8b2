// An IoT hub for bridges, who may signal through it, and, if you like, the relay itself in
// Container Apps. What to fill in for each case: the *.parameters.json beside this file.
//
//   az deployment group create -g bridge -f infra/bicep/main.bicep -p infra/bicep/main.federated.parameters.json
//   az deployment group show -g bridge -n main --query properties.outputs.relaySettings.value
//
// Who deploys it may make roles and give them: Owner of the resource group, or Contributor
// with User Access Administrator.
targetScope = 'resourceGroup'

@description('Region of every resource.')
param location string = resourceGroup().location

@description('First part of every name: letters that are small, digits and hyphens.')
@minLength(3)
@maxLength(16)
param baseName string = 'bridge'

param tags object = {}

// The hub

@description('Tier of the hub. There is no basic one among them: B1, B2 and B3 have neither direct methods nor cloud-to-device messages, so no device could be told anything. F1 is free, one to a subscription.')
@allowed(['F1', 'S1', 'S2', 'S3'])
param hubTier string = 'S1'

@description('Units of the tier; F1 has one. A unit of S1 calls 40 direct methods a second, and has 400,000 messages a day, of which a bridge takes one or two.')
@minValue(1)
@maxValue(200)
param hubUnits int = 1

@description('Least TLS that the hub accepts. Fixed when the hub is made.')
@allowed(['1.2'])
param hubMinTlsVersion string = '1.2'

@description('Disabled: the hub is reached through private endpoints only, also by devices.')
@allowed(['Enabled', 'Disabled'])
param hubPublicNetworkAccess string = 'Enabled'

@description('Accept signatures made with keys of the hub\'s policies (local authentication). Off unless relayCredential is connection-string. A provisioning service (DPS) has such a key in its link to the hub and stops provisioning without it, so set this to true where there is one. Keys and certificates of devices do not depend on it.')
param allowHubKeys bool = false

@description('Workspace for logs and metrics: empty makes one.')
param workspaceId string = ''

@minValue(30)
@maxValue(730)
param logRetentionDays int = 30

// Who the relay is

@description('How the relay signs in at the hub. managed-identity: it runs in Azure, or on an Arc machine. workload-identity: elsewhere, with tokens of an issuer named in federatedCredentials. client-certificate: on a plain VM, as an app registration. connection-string: with a key of the hub\'s policy service, which keeps local authentication on.')
@allowed(['managed-identity', 'workload-identity', 'client-certificate', 'connection-string'])
param relayCredential string = 'managed-identity'

@description('Issuers whose tokens sign in as the relay\'s identity: name, issuer and subject of each.')
param federatedCredentials array = []

@description('For client-certificate: application (client) ID of the app registration.')
param appClientId string = ''

@description('For client-certificate: object ID of its service principal, az ad sp show --id APP_ID --query id. It is neither the application\'s ID nor the application\'s object ID.')
param appObjectId string = ''

// How devices are told

@description('RELAY_SIGNALER of the relay.')
@allowed(['c2d', 'method', 'auto'])
param signaler string = 'auto'

@description('Let the relay log what became of each cloud-to-device message (RELAY_HUB_FEEDBACK), which is a third right at the hub. Not with the signaler method.')
param feedback bool = false

// The relay in Container Apps

@description('Run the relay in Container Apps. Deploy with false first: the vault that this makes has to hold the relay\'s secrets before nodes can start.')
param deployRelay bool = false

@description('Make the vault for the relay\'s secrets.')
param deployVault bool = deployRelay

@description('Image of the relay, with a tag or digest that stays: registry.example.com/relay:1.2.3.')
param relayImage string = ''

@description('Caddy for the front.')
param frontImage string = 'docker.io/library/caddy:2.10.2-alpine'

@description('Name of the container registry that has relayImage. Empty: everybody may pull it.')
param registryName string = ''

@description('Resource group of the registry.')
param registryResourceGroup string = resourceGroup().name

@description('Nodes of the relay.')
@minValue(2)
@maxValue(10)
param relayNodes int = 2

@description('Replicas of the front.')
@minValue(2)
@maxValue(10)
param frontReplicas int = 2

@description('More settings of every node: {"RELAY_MAX_BRIDGES": "2000"}. No secrets; those are in the vault.')
param relaySettingsExtra object = {}

@description('Names of secrets in the vault that nodes get as files in /secrets. api-keys and token-keys are always needed.')
param relaySecrets array = ['api-keys', 'token-keys']

@description('How long bridges may go on when a node is replaced. Container Apps waits 600 s at most.')
@minValue(30)
@maxValue(570)
param drainSeconds int = 540

@description('Addresses inside the environment, whose front and ingress say whose request it is (RELAY_TRUSTED_PROXIES).')
param trustedProxies string = '10.0.0.0/8,100.64.0.0/10,169.254.0.0/16,172.16.0.0/12,192.168.0.0/16'

@description('Your own name for the relay, such as relay.example.com, with a CNAME record to the front and a TXT record asuid.relay. Empty: the name that Azure makes.')
param relayHost string = ''

@description('Resource ID of the certificate of relayHost in the environment. Empty: not yet, so that the name can be proven first.')
param certificateId string = ''

@description('Subnet of yours for the environment, delegated to Microsoft.App/environments. Empty: Azure makes a network.')
param subnetId string = ''

@description('Spread Container Apps over zones. Needs subnetId, and is fixed when the environment is made.')
param zoneRedundant bool = false

var suffix = uniqueString(resourceGroup().id)
var names = {
  hub: '${baseName}-${suffix}'
  identity: '${baseName}-relay'
  workspace: '${baseName}-logs'
  vault: '${take(baseName, 10)}-${suffix}'
  environment: '${baseName}-env'
  front: '${baseName}-front'
}
var nodeNames = [for i in range(0, relayNodes): '${baseName}-node-${i}']
var keys = allowHubKeys || relayCredential == 'connection-string'
var ownWorkspace = empty(workspaceId)
var ownVault = deployVault || deployRelay
// A key or an app registration is who the relay is; then there is no identity that could be misused.
var usesIdentity = ownVault || contains(['managed-identity', 'workload-identity'], relayCredential)

module logs 'logs.bicep' = if (ownWorkspace) {
  name: 'logs'
  params: {
    location: location
    tags: tags
    name: names.workspace
    retentionInDays: logRetentionDays
  }
}

module hub 'hub.bicep' = {
  name: 'hub'
  params: {
    location: location
    tags: tags
    name: names.hub
    tier: hubTier
    units: hubTier == 'F1' ? 1 : hubUnits
    minTlsVersion: hubMinTlsVersion
    allowKeys: keys
    publicNetworkAccess: hubPublicNetworkAccess
  }
}

module diagnostics 'diagnostics.bicep' = {
  name: 'diagnostics'
  params: {
    hubName: hub.outputs.name
    workspaceId: ownWorkspace ? logs!.outputs.id : workspaceId
  }
}

module identity 'identity.bicep' = if (usesIdentity) {
  name: 'identity'
  params: {
    location: location
    tags: tags
    name: names.identity
  }
}

module role 'role.bicep' = if (usesIdentity || !empty(appObjectId)) {
  name: 'role'
  params: {
    hubName: hub.outputs.name
    principalIds: concat(usesIdentity ? [identity!.outputs.principalId] : [], empty(appObjectId) ? [] : [appObjectId])
    feedback: feedback
  }
}

module federation 'federation.bicep' = if (usesIdentity && !empty(federatedCredentials)) {
  name: 'federation'
  params: {
    identityName: identity!.outputs.name
    credentials: federatedCredentials
  }
}

module vault 'vault.bicep' = if (ownVault) {
  name: 'vault'
  params: {
    location: location
    tags: tags
    name: names.vault
    principalId: identity!.outputs.principalId
  }
}

module registry 'registry.bicep' = if (deployRelay && !empty(registryName)) {
  name: 'registry'
  scope: resourceGroup(registryResourceGroup)
  params: {
    name: registryName
    principalId: identity!.outputs.principalId
  }
}

module environment 'environment.bicep' = if (deployRelay) {
  name: 'environment'
  params: {
    location: location
    tags: tags
    name: names.environment
    workspaceId: ownWorkspace ? logs!.outputs.id : workspaceId
    subnetId: subnetId
    zoneRedundant: zoneRedundant
  }
}

var clientId = usesIdentity ? identity!.outputs.clientId : ''

// What signs in, by relayCredential. RELAY_HUB_CONNECTION_STRING is a secret and not here.
var managed = {
  RELAY_HUB_HOST: hub.outputs.hostName
  RELAY_HUB_CREDENTIAL: 'managed-identity'
  RELAY_HUB_CLIENT_ID: clientId
}
var signIn = {
  'managed-identity': managed
  'workload-identity': {
    RELAY_HUB_HOST: hub.outputs.hostName
    RELAY_HUB_CREDENTIAL: 'workload-identity'
    RELAY_HUB_TENANT_ID: tenant().tenantId
    RELAY_HUB_CLIENT_ID: clientId
  }
  'client-certificate': {
    RELAY_HUB_HOST: hub.outputs.hostName
    RELAY_HUB_CREDENTIAL: 'client-certificate'
    RELAY_HUB_TENANT_ID: tenant().tenantId
    RELAY_HUB_CLIENT_ID: appClientId
  }
  'connection-string': {}
}
var telling = {
  RELAY_SIGNALER: signaler
  RELAY_HUB_TIER: hubTier
  RELAY_HUB_UNITS: string(hubTier == 'F1' ? 1 : hubUnits)
}
var feedbackSetting = feedback && signaler != 'method'
  ? {
      RELAY_HUB_FEEDBACK: 'true'
    }
  : {}

// Direct methods a second of one unit, less a fifth, as the relay has it by itself. Nodes do
// not know of each other's calls, so each gets its share.
var methodsPerSecond = {
  F1: 32
  S1: 32
  S2: 96
  S3: 4800
}
var share = signaler == 'c2d'
  ? {}
  : {
      RELAY_HUB_RATE: string(max(methodsPerSecond[hubTier] * (hubTier == 'F1' ? 1 : hubUnits) / relayNodes, 1))
    }
var publicHost = empty(relayHost) && deployRelay ? '${names.front}.${environment!.outputs.domain}' : relayHost

module nodes 'nodes.bicep' = if (deployRelay) {
  name: 'nodes'
  params: {
    location: location
    tags: tags
    environmentId: environment!.outputs.id
    identityId: identity!.outputs.id
    image: relayImage
    registryServer: empty(registryName) ? '' : registry!.outputs.loginServer
    names: nodeNames
    vaultUri: vault!.outputs.uri
    secretNames: relaySecrets
    drainSeconds: drainSeconds
    settings: union(
      telling,
      feedbackSetting,
      managed,
      share,
      {
        RELAY_PUBLIC_URL: 'wss://${publicHost}'
        RELAY_TRUSTED_PROXIES: trustedProxies
        RELAY_API_KEYS: '/secrets/api-keys'
        RELAY_TOKEN_KEYS_FILE: '/secrets/token-keys'
        RELAY_AUDIT: 'stdout'
      },
      relaySettingsExtra
    )
  }
  dependsOn: [role] // or nodes that start before it are refused at the hub
}

module front 'front.bicep' = if (deployRelay) {
  name: 'front'
  params: {
    location: location
    tags: tags
    environmentId: environment!.outputs.id
    name: names.front
    image: frontImage
    upstreams: nodes!.outputs.upstreams
    replicas: frontReplicas
    host: relayHost
    certificateId: certificateId
  }
}

@description('Settings of a relay that runs elsewhere, as they are: each is an environment variable.')
output relaySettings object = union(telling, feedbackSetting, signIn[relayCredential])

@description('Host of the hub, for devices that sign in with a certificate (AGENT_HUB_HOST).')
output hubHost string = hub.outputs.hostName

@description('For az iot hub …, such as connection-string show or device-identity create.')
output hubName string = hub.outputs.name

@description('Client ID of the relay\'s identity, also for the annotation azure.workload.identity/client-id of a ServiceAccount. Empty: it has none.')
output relayClientId string = clientId

@description('Where the relay\'s secrets belong. Empty: no vault was asked for.')
output vaultName string = ownVault ? vault!.outputs.name : ''

@description('Where requesters and devices reach the relay: BRIDGE_RELAY, and without wss:// AGENT_RELAY_HOSTS. Empty: it does not run here.')
output relayUrl string = deployRelay ? 'wss://${publicHost}' : ''

@description('Name that a CNAME record of relayHost leads to.')
output frontHost string = deployRelay ? front!.outputs.host : ''

@description('Value of the TXT record asuid.NAME, by which you prove that relayHost is yours.')
output domainVerificationId string = deployRelay ? environment!.outputs.verificationId : ''
