def main(inputs):
    return 1
