# The gateway: nginx with our configuration. Built from the repository's root.
# docker-compose.yml says which versions.
ARG PYTHON
ARG NGINX

FROM ${PYTHON} AS configuration
COPY gateway /build/gateway
RUN cd /build && python -m gateway.container /gateway

FROM ${NGINX}
COPY --from=configuration /gateway/configuration /etc/gateway
COPY --from=configuration /gateway/static /usr/share/gateway
COPY deploy/containers/gateway.sh /usr/local/bin/gateway
# Readable by whoever it runs as; the image's own entry point would write below /etc.
RUN chmod 755 /usr/local/bin/gateway
USER 10001:10001
WORKDIR /run/gateway
EXPOSE 8080
STOPSIGNAL SIGQUIT
ENTRYPOINT ["/usr/local/bin/gateway"]
CMD ["serve"]
