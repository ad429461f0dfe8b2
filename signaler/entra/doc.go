// Package entra is how a relay proves who it is with Microsoft Entra ID instead of a
// hub's shared key: a credential.Source on azidentity.
//
// # What it needs
//
// An identity, and a role for it on the hub. No built-in role is for sending only: "IoT
// Hub Data Contributor" can do everything, a custom role needs these data actions
// (Microsoft Learn, "Control access to IoT Hub by using Microsoft Entra ID"):
//
//	Microsoft.Devices/IotHubs/directMethods/invoke/action                method
//	Microsoft.Devices/IotHubs/cloudToDeviceMessages/send/action          c2d
//	Microsoft.Devices/IotHubs/cloudToDeviceMessages/feedback/action      c2d's feedback
//
// A new role takes some minutes until the hub knows of it. Devices cannot use Entra ID.
//
// # Kinds
//
//	managed-identity     the machine's own, on Azure or on an Azure Arc machine; ClientID names one
//	                     of several
//	workload-identity    a file with a token that a trusted issuer writes: Kubernetes, GitHub
//	                     and others
//	client-secret        an app registration with a secret
//	client-certificate   an app registration with a certificate, in a PEM or PFX file
//	azure-cli            whoever has run az login; for developers
//
// # Tokens
//
// A token lives for an hour or a day. It is given again until 2/3 of its life are over.
// Then one caller gets a new one while all others still use the old one; if that fails,
// the old one is used until its end, and a new one is tried for every 30 s. When there
// is none, callers wait for one request together.
//
// # Why
//
// Why there is no "default": azidentity's chain of guesses takes whichever identity it
// finds first, and a relay that runs as somebody else says "unauthorized" at best.
//
// Why azidentity's credential is made anew for each token: a certificate that was
// renewed on disk is used without a restart, and a token that the hub refused is not
// taken from azidentity's cache again.
package entra
