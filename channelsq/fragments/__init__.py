"""HTML fragments for pages with ``{% live %}``: rendering, their forms on the wire, and the sockets that get them.

::

    swaps          one change of a page, and its form for htmx, Turbo and channelsq's own script
    page_groups    the groups of the pages' sockets, and the time of the last fragment
    sending        a fragment on its way to the groups
    page_tickets   the signed permission of a page to join groups
    joining        the answers to sockets that join
"""
