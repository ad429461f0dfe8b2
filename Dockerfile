# syntax=docker/dockerfile:1

# One build, four images: relay (the default), deviceagent, bridge, emulator.
#
#   docker build -t websocketbridge/relay:dev .
#   docker build -t websocketbridge/deviceagent:dev --target deviceagent .
#   docker buildx build --platform linux/amd64,linux/arm64 --target relay .
#
# Each holds one static program, certificates to trust and an empty folder that its user
# may write to: no shell and no other file, so the root file system can be read-only. The
# same sources and arguments make the same bytes:
#
#   docker buildx build --build-arg VERSION=1.2.3 --build-arg SOURCE_DATE_EPOCH=$(git log -1 --format=%ct) \
#     --output type=oci,dest=relay.tar,rewrite-timestamp=true .

# Another registry's, or a digest: --build-arg GO_IMAGE=golang:1.26.8-bookworm@sha256:…
ARG GO_IMAGE=golang:1.26.8-bookworm

FROM --platform=$BUILDPLATFORM ${GO_IMAGE} AS build
WORKDIR /src
ENV GOCACHE=/gocache
# Only where modules come from elsewhere than the public proxy.
ARG GOPROXY
ARG GONOSUMDB
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download
COPY . .
ARG TARGETOS=linux
ARG TARGETARCH=amd64
# arm/v7 is v7 here, and no other architecture has one
ARG TARGETVARIANT
ARG VERSION
# The Go command puts neither time nor place into a program: -trimpath, no state of Git.
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/gocache \
    CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH GOARM=${TARGETVARIANT#v} \
    go build -trimpath -buildvcs=false -ldflags "-s -w -X websocketbridge/relay/settings.version=$VERSION" -o /out/bin/ \
    ./relay/cmd/relay ./relay/cmd/bridge ./deviceagent/cmd/deviceagent ./test/emulator/cmd/emulator
# What each image has besides its program. The time is the same in each build.
ARG SOURCE_DATE_EPOCH=0
RUN mkdir -p /out/files/etc/ssl/certs /out/data && \
    cp -L /etc/ssl/certs/ca-certificates.crt /out/files/etc/ssl/certs/ && \
    echo 'nonroot:x:65532:65532::/data:/sbin/nologin' >/out/files/etc/passwd && \
    echo 'nonroot:x:65532:' >/out/files/etc/group && \
    find /out -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +

FROM scratch AS base
COPY --from=build /out/files/ /
# For a volume, which gets this owner: keys, audit log.
COPY --from=build --chown=65532:65532 /out/data/ /data/
USER 65532:65532
ENV HOME=/data
WORKDIR /data

# An IoT hub in memory, to try things out.
FROM base AS emulator
COPY --from=build /out/bin/emulator /emulator
EXPOSE 8883 5671 8443
HEALTHCHECK --interval=10s --start-period=5s CMD ["/emulator", "healthcheck"]
ENTRYPOINT ["/emulator"]
CMD ["--listen", "0.0.0.0", "--https-port", "8443", "--device", "pump-7"]

# The user's command: it runs once, or until the tunnel ends, and exits with why.
FROM base AS bridge
COPY --from=build /out/bin/bridge /bridge
HEALTHCHECK NONE
ENTRYPOINT ["/bridge"]

FROM base AS deviceagent
COPY --from=build /out/bin/deviceagent /deviceagent
# Where its status socket is. With a read-only root file system: --tmpfs /data:uid=65532,mode=0700
ENV XDG_RUNTIME_DIR=/data
HEALTHCHECK --interval=10s --start-period=5s CMD ["/deviceagent", "status", "--quiet"]
ENTRYPOINT ["/deviceagent"]

# The last stage is what is built without --target.
FROM base AS relay
COPY --from=build /out/bin/relay /relay
# Inside of a container loopback is of no use to anybody else.
ENV RELAY_LISTEN=:8080
EXPOSE 8080 7443 9090
HEALTHCHECK --interval=10s --start-period=5s CMD ["/relay", "healthcheck"]
ENTRYPOINT ["/relay"]
